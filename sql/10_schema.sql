-- The extension's own schema; what people call sits in the schema that the extension is created in.

CREATE SCHEMA audius_challenges;

COMMENT ON SCHEMA audius_challenges IS
'audius_challenges: state of the processors, the tick, and what belongs to running them';
