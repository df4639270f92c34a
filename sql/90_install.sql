-- Last: what CREATE EXTENSION does beyond its own objects, told by notices (which scripts suppress by default).

SET LOCAL client_min_messages = notice;

SELECT audius_challenges.install();
