-- name: name_of
-- The notification channel of this schema. Payloads: `ready:<queue>`, `cancel`.
SELECT reproq_channel()
