-- The extension's own schema; what people call sits in the schema that the extension is created in.

CREATE SCHEMA audius_challenges;

COMMENT ON SCHEMA audius_challenges IS
'State of the challenges, the tick, and the functions that support them';
