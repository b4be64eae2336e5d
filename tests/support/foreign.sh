#!/bin/sh
# A program of another language that speaks the executor protocol: what it does is the last part of the task path.
args="$*"
while [ $# -gt 0 ]; do
    case "$1" in
        --payload-stdin) payload=$(cat) ;;
        --payload-file) payload=$(cat "$2"); shift ;;
        --payload-json) payload=$2; shift ;;
        --task-path) path=$2; shift ;;
        *) shift ;;
    esac
    shift
done
[ -n "$path" ] || path=$(printf '%s' "$payload" | sed -n 's/.*"task_path": *"\([a-z0-9_.]*\)".*/\1/p')
ok='{"ok": true, "return": "ok"}'
case "${path#foreign.}" in
    ok) echo "$ok" ;;
    arguments) printf '{"ok": true, "return": "%s"}' "$args" ;;
    payload_bytes) printf '{"ok": true, "return": %s}' "$(printf '%s' "$payload" | wc -c)" ;;
    inherited) printf '{"ok": true, "return": "%s"}' "$(ls /proc/self/fd | tr '\n' ' '; grep -E 'SigBlk|SigIgn' /proc/self/status | tr '\t\n' '  ')" ;;
    words) echo "a word" >&2; echo "$ok" ;;
    fail) echo '{"ok": false, "exception_class": "Foreign", "message": "no luck", "traceback": "line 1"}'; exit 1 ;;
    missing) echo '{"ok": false, "exception_class": "ImportError", "message": "no such task"}'; exit 1 ;;
    steer) echo '{"ok": false, "message": "never again", "retry": false}' ;;
    nan) echo '{"ok": true, "return": NaN}' ;;
    nul) echo '{"ok": true, "return": "\u0000"}' ;;
    ok_and_exit_5) echo "$ok"; exit 5 ;;
    exit_3) exit 3 ;;
    nothing) ;;
    noise) echo "hello" ;;
    twice) echo "$ok"; echo "$ok" ;;
    list) echo "[1]" ;;
    long) printf '{"ok": true, "return": "'; head -c 70000 /dev/zero | tr '\0' x; echo '"}' ;;
    flood_stderr) yes "flood" | head -c 8388608 >&2; echo "$ok" ;;
    flood_and_hang) yes "flood" | head -c 67108864; sleep 3600 & wait ;;
    die) kill -9 $$ ;;
    terminate) kill -15 $$ ;;
    hold_streams) sleep 3600 & echo "$ok" ;;
    clean_up) trap 'echo "{\"ok\": false, \"exception_class\": \"Terminated\", \"message\": \"cleaned up\"}"; exit 1' TERM; sleep 3600 & wait ;;
    finish_late) trap 'echo "$ok"; exit 0' TERM; sleep 3600 & wait ;;
    stubborn) trap '' TERM; while :; do sleep 1; done ;;
    *) echo "unknown: $path" >&2; exit 9 ;;
esac
