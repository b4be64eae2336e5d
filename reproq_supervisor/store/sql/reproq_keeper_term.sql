-- name: elect
-- Renews the holder's term or begins one if nobody keeps. One row: (number, holder, seconds since its start, seconds until its end) of the
-- term that there is.
SELECT term_no, holder, extract(epoch FROM clock_timestamp() - since)::float8, left_s
FROM reproq_elect(%(holder)s, %(length_s)s, %(backend_pid)s::integer)

-- name: resign
-- Ends the holder's term.
SELECT reproq_resign(%(holder)s)
