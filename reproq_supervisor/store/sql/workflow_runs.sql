-- name: begin
-- A workflow with a callback. One without members is complete from the start, as the contract has it.
INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id, status)
VALUES (%(id)s::uuid, %(members)s::int, %(callback)s::bigint, CASE WHEN %(members)s::int = 0 THEN 'WAITING_CALLBACK' ELSE 'RUNNING' END)
