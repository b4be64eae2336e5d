"""Which power the unit takes away from daemon and tasks, and what each costs a task that wants it.

Everything is taken away that the configuration does not need. A drop-in (`systemctl edit`) gives back what a task needs; the comments say
which line that is.
"""

from collections.abc import Iterator

from reproq_supervisor.cli.systemd.directives import Directive
from reproq_supervisor.cli.systemd.needs import TEMPORARY, Needs
from reproq_supervisor.cli.systemd.quoting import listed

# The hard limit that systemd gives every service.
_USUAL_OPEN_FILES = 524288
# Root without these cannot even read the files of its application's user.
_ROOT_READS = ("CAP_DAC_READ_SEARCH",)
# To become another user, to give that user its files and reach them again, and to kill what runs as that user.
_OTHER_USERS = ("CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_KILL")


def harden(needs: Needs) -> Iterator[Directive]:
    """Yield the directives in the order of the file."""
    yield from _privileges(needs)
    yield from _files(needs)
    yield from _system(needs)
    yield from _calls(needs)


def _privileges(needs: Needs) -> Iterator[Directive]:
    yield Directive(
        "NoNewPrivileges", "yes", "Programs with the set-user-id bit (sudo, ping, postdrop) gain nothing when a task starts them."
    )
    capabilities = [*(_ROOT_READS if needs.root else ()), *(_OTHER_USERS if needs.other_users else ())]
    if needs.root and needs.lowest_nice < 0:
        capabilities.append("CAP_SYS_NICE")
    yield Directive("CapabilityBoundingSet", " ".join(capabilities))
    if needs.lowest_nice < 0 and not needs.root:
        yield Directive("LimitNICE", str(needs.lowest_nice), "A pool has this niceness; below 0 takes a limit that allows it.")
    if needs.open_files > _USUAL_OPEN_FILES:
        yield Directive("LimitNOFILE", str(needs.open_files), "A pool allows this many descriptors.")
    if not needs.root:
        yield Directive("PrivateUsers", "yes", "Files of other users look as if nobody owned them.")
        yield Directive("RemoveIPC", "yes")
    yield Directive("UMask", "0077", "What tasks write is for this user alone. For a web server that serves it: UMask=0027 and its group.")
    yield Directive("RestrictSUIDSGID", "yes", "chmod g+s is refused, also on folders.")
    yield Directive("KeyringMode", "private")


def _files(needs: Needs) -> Iterator[Directive]:
    yield Directive(
        "ProtectSystem", "strict", "All is read-only but the folders named here and below. Tasks that write elsewhere: ReadWritePaths=."
    )
    # Where /tmp is shared, it has to be written to all the same.
    if writable := [*needs.writable, *(TEMPORARY if needs.temporary else ())]:
        yield Directive("ReadWritePaths", listed(writable))
    if needs.homes:
        yield Directive("ProtectHome", "read-only", "The program, its configuration or its application is in a home.")
    else:
        yield Directive("ProtectHome", "yes", "Homes look empty.")
    if needs.temporary:
        yield Directive("PrivateTmp", "no", "Something that it needs is in a folder for temporary files, which it therefore shares.")
    else:
        yield Directive("PrivateTmp", "yes", "Folders for temporary files are its own, and emptied when it stops.")
    yield Directive("PrivateMounts", "yes")
    yield Directive("PrivateDevices", "yes", "No disks, no GPU. For a GPU: PrivateDevices=no and DeviceAllow=.")
    yield Directive("DevicePolicy", "closed")


def _system(needs: Needs) -> Iterator[Directive]:
    for name in ("Clock", "ControlGroups", "Hostname", "KernelLogs", "KernelModules", "KernelTunables"):
        yield Directive(f"Protect{name}", "yes")
    # Root without CAP_SYS_PTRACE would not even see its own children that run as somebody else.
    yield Directive("ProtectProc", "default" if needs.other_users else "invisible")
    yield Directive("PrivateIPC", "yes")
    yield Directive("RestrictNamespaces", "yes", "No containers inside tasks.")
    yield Directive("RestrictRealtime", "yes")
    yield Directive("LockPersonality", "yes")


def _calls(needs: Needs) -> Iterator[Directive]:
    yield Directive("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6", "No raw packets, netlink, Bluetooth.")
    yield Directive("SystemCallArchitectures", "native")
    yield Directive(
        "SystemCallFilter", "@system-service", "What services usually call; other calls fail with EPERM instead of killing the task."
    )
    if not needs.root:
        yield Directive("SystemCallFilter", "~@privileged", "chown is among them, also to a group that the user is in.")
    yield Directive(
        "SystemCallErrorNumber",
        "EPERM",
        "Not set: MemoryDenyWriteExecute=, which breaks just-in-time compilers and callbacks of C libraries.",
    )
