-- Challenge e, listen streak: a state machine over plays, with the incidents it has had elsewhere.
BEGIN;
SELECT plan(59);

-- While it was never active.
SELECT build.person(255);
SELECT build.play(255, 1, '2025-03-02 12:34:56');
SELECT build.play(254, 1, '2025-03-02 12:34:56');
SELECT results_eq(
    $$SELECT challenge_id, status FROM reconcile_challenges(ARRAY['e'])$$,
    $$VALUES ('e', 'inactive')$$,
    'an inactive streak says so'
);
SELECT is_empty(
    $$SELECT user_id FROM challenge_listen_streak UNION ALL SELECT user_id FROM user_challenges$$,
    'an inactive streak writes nothing'
);

-- The first listen, in a session far from UTC that writes dates in another style.
UPDATE challenges SET active = TRUE WHERE id = 'e';
SET LOCAL timezone = 'America/Los_Angeles';
SET LOCAL datestyle = 'SQL, MDY';
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at AT TIME ZONE 'UTC', completed_at
    FROM user_challenges$$,
    $$VALUES (
        255, 'ff2025030212', FALSE, 1, 7, NULL::integer, '2025-03-02 12:34:56'::timestamp, NULL::timestamp
    )$$,
    'the first active run counts the plays there are: a first listen opens a row at its own time in UTC'
);
SELECT results_eq(
    $$SELECT user_id, last_listen_date, listen_streak FROM challenge_listen_streak$$,
    $$VALUES (255, '2025-03-02 12:34:56'::timestamp, 1)$$,
    'a first listen is a streak of 1'
);

SELECT build.person(254);
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT last_listen_date, listen_streak FROM challenge_listen_streak WHERE user_id = 254$$,
    $$VALUES ('2025-03-02 12:34:56'::timestamp, 1)$$,
    'a listen of somebody unknown counts when the user comes to be known'
);

-- The boundaries: the second listen of users 10 to 13 comes 16 h or 48 h after the first, or just before.
SELECT build.person(user_id) FROM generate_series(10, 13) AS user_id;
SELECT build.play(user_id, 1, '2025-03-02 00:00') FROM generate_series(10, 13) AS user_id;
SELECT build.play(10, 1, '2025-03-02 15:59:59.999999');
SELECT build.play(11, 1, '2025-03-02 16:00');
SELECT build.play(12, 1, '2025-03-03 23:59:59.999999');
SELECT build.play(13, 1, '2025-03-04 00:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT last_listen_date, listen_streak FROM challenge_listen_streak WHERE user_id = 10$$,
    $$VALUES ('2025-03-02 00:00'::timestamp, 1)$$,
    'a listen less than 16 h after the last counted one changes nothing'
);
SELECT results_eq(
    $$SELECT last_listen_date, listen_streak FROM challenge_listen_streak WHERE user_id = 11$$,
    $$VALUES ('2025-03-02 16:00'::timestamp, 2)$$,
    'a listen exactly 16 h after the last counted one counts'
);
SELECT results_eq(
    $$SELECT last_listen_date, listen_streak FROM challenge_listen_streak WHERE user_id = 12$$,
    $$VALUES ('2025-03-03 23:59:59.999999'::timestamp, 2)$$,
    'a listen just under 48 h after the last counted one counts'
);
SELECT results_eq(
    $$SELECT last_listen_date, listen_streak FROM challenge_listen_streak WHERE user_id = 13$$,
    $$VALUES ('2025-03-04 00:00'::timestamp, 1)$$,
    'a listen 48 h after the last counted one puts the streak back to 1'
);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count FROM user_challenges WHERE user_id BETWEEN 10 AND 13
    ORDER BY specifier$$,
    $$VALUES ('a2025030200', 1), ('b2025030200', 2), ('c2025030200', 2), ('d2025030200', 1), ('d2025030400', 1)$$,
    'a counted listen updates the row of the streak, and a broken streak opens a new row'
);

-- Seven days and more, day by day.
SELECT build.block(4321);
SELECT build.person(20);
SELECT build.play(20, 1, '2025-03-02 12:00'::timestamp + day * '1 day'::interval)
FROM generate_series(0, 5) AS day;
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount FROM user_challenges WHERE user_id = 20$$,
    $$VALUES ('142025030212', FALSE, 6, 7)$$,
    'six days in one batch are one incomplete row'
);
SELECT build.play(20, 1, '2025-03-08 12:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT
        specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at AT TIME ZONE 'UTC', completed_at
    FROM user_challenges WHERE user_id = 20$$,
    $$VALUES (
        '142025030212', TRUE, 7, 7, 4321, '2025-03-02 12:00'::timestamp, '2025-03-08 12:00'::timestamp
    )$$,
    'the seventh day completes the same row, at the time of that listen'
);
SELECT results_eq(
    $$SELECT data ->> 'listen_streak' FROM notification WHERE user_ids = ARRAY[20]$$,
    $$VALUES ('7')$$,
    'the state is written before the row, so that the application tells the streak as it is'
);
SELECT build.play(20, 1, '2025-03-08 20:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text FROM user_challenges WHERE user_id = 20$$,
    $$VALUES ('142025030212')$$,
    'a second listen on the day of completion opens no second row'
);
SELECT build.play(20, 1, '2025-03-09 12:00');
SELECT build.run(ARRAY['e']);
SELECT build.play(20, 1, '2025-03-10 13:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT
        specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at AT TIME ZONE 'UTC', completed_at
    FROM user_challenges WHERE user_id = 20 ORDER BY created_at$$,
    $$VALUES
        ('142025030212', TRUE, 7, 7, 4321, '2025-03-02 12:00'::timestamp, '2025-03-08 12:00'::timestamp),
        ('142025030912', TRUE, 1, 1, 4321, '2025-03-09 12:00'::timestamp, '2025-03-09 12:00'::timestamp),
        ('142025031013', TRUE, 1, 1, 4321, '2025-03-10 13:00'::timestamp, '2025-03-10 13:00'::timestamp)$$,
    'after the seventh, each counted listen adds one complete row of its own, amount 1'
);
SELECT build.play(20, 1, '2025-03-16 12:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount FROM user_challenges
    WHERE user_id = 20 AND created_at > '2025-03-11'$$,
    $$VALUES ('142025031612', FALSE, 1, 7)$$,
    'a streak that breaks after the seventh day starts over, with a row of amount 7'
);

-- Ten days, five plays a day, in one batch.
SELECT build.person(30);
SELECT build.play(30, track_id, '2025-03-02 08:00'::timestamp + day * '1 day'::interval + track_id * '1 hour'::interval)
FROM generate_series(0, 9) AS day
CROSS JOIN generate_series(0, 4) AS track_id;
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount, completed_at FROM user_challenges
    WHERE user_id = 30 ORDER BY specifier$$,
    $$VALUES
        ('1e2025030208', TRUE, 7, 7, '2025-03-08 08:00'::timestamp),
        ('1e2025030908', TRUE, 1, 1, '2025-03-09 08:00'::timestamp),
        ('1e2025031008', TRUE, 1, 1, '2025-03-10 08:00'::timestamp),
        ('1e2025031108', TRUE, 1, 1, '2025-03-11 08:00'::timestamp)$$,
    'many plays in one batch make one row for the seven days and one for each day after'
);
SELECT results_eq(
    $$SELECT last_listen_date, listen_streak FROM challenge_listen_streak WHERE user_id = 30$$,
    $$VALUES ('2025-03-11 08:00'::timestamp, 10)$$,
    'the state is that of the last counted listen'
);
SELECT results_eq(
    $$SELECT sum(amount) FROM user_challenges WHERE user_id = 30 AND is_complete$$,
    $$VALUES (10::bigint)$$,
    'an unbroken streak of n days earns 7 at day 7 and 1 for each day after it'
);

-- The order of the plays, late ones, and ones seen again.
SELECT build.person(40);
SELECT build.play(40, 1, '2025-03-04 12:00');
SELECT build.play(40, 1, '2025-03-02 12:00');
SELECT build.play(40, 1, '2025-03-03 12:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count FROM user_challenges WHERE user_id = 40$$,
    $$VALUES ('282025030212', 3)$$,
    'plays are taken in the order they were played, not in the order of their ids'
);
SELECT build.play(40, 1, '2025-03-04 11:59:59');
SELECT build.play(40, 1, '2025-02-02 12:00');
SELECT build.play(40, 1, '2025-03-04 12:00');
SELECT results_eq(
    $$SELECT status, rows_inserted, rows_updated FROM reconcile_challenges(ARRAY['e'])$$,
    $$VALUES ('ok', 0::bigint, 0::bigint)$$,
    'a listen that is not newer than the last counted one changes nothing'
);
SELECT results_eq(
    $$SELECT last_listen_date, listen_streak FROM challenge_listen_streak WHERE user_id = 40$$,
    $$VALUES ('2025-03-04 12:00'::timestamp, 3)$$,
    'a late listen leaves the state alone'
);
DELETE FROM plays WHERE user_id = 20;
SELECT build.play(20, 1, '2025-03-02 12:00'::timestamp + day * '1 day'::interval)
FROM generate_series(0, 8) AS day;
SELECT results_eq(
    $$SELECT status, rows_inserted, rows_updated FROM reconcile_challenges(ARRAY['e'])$$,
    $$VALUES ('ok', 0::bigint, 0::bigint)$$,
    'listens that are seen again, under whatever id, change nothing'
);
DELETE FROM plays;
SELECT build.play(40, 1, '2025-03-05 12:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count FROM user_challenges WHERE user_id = 40$$,
    $$VALUES ('282025030212', 4)$$,
    'a streak goes on when the plays before it are pruned'
);
SELECT results_eq(
    $$SELECT current_step_count, is_complete FROM user_challenges WHERE user_id = 255$$,
    $$VALUES (1, FALSE)$$,
    'a pruned play takes nothing away'
);

-- A broken streak.
SELECT build.person(50);
SELECT build.play(50, 1, '2025-03-02 12:00'::timestamp + day * '1 day'::interval)
FROM unnest(ARRAY[0, 1, 2, 5]) AS day;
SELECT build.run(ARRAY['e']);
SELECT build.play(50, 1, '2025-03-08 12:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount FROM user_challenges WHERE user_id = 50
    ORDER BY created_at$$,
    $$VALUES ('322025030212', FALSE, 3, 7), ('322025030712', FALSE, 2, 7)$$,
    'a broken streak leaves its row as it is, and the next one goes on in a new row'
);

-- What earlier services left: state with a running row of another specifier, with none, or with an older one.
SELECT build.person(user_id) FROM generate_series(58, 69) AS user_id;
INSERT INTO challenge_listen_streak (user_id, last_listen_date, listen_streak)
VALUES
    (58, '2025-03-02 12:00', 2),
    (59, '2025-03-02 12:00', 2),
    (60, '2025-03-02 12:00', 3),
    (61, '2025-03-02 12:00', 6),
    (62, '2025-03-02 12:00', 3),
    (63, '2025-03-02 12:00', 2),
    (64, '2025-03-02 12:00', 2),
    (65, '2025-03-02 12:00', 2),
    (66, '2025-03-02 12:00', 2),
    (67, '2025-03-02 12:00', 6),
    (68, '2025-03-02 12:00', 7),
    (69, '2025-03-02 12:00', 7);
INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount, created_at)
VALUES
    ('e', 58, '3a2025030112', FALSE, 2, 7, '2025-03-01 12:00+00'),
    ('u', 58, '3a', FALSE, 1, 1, '2025-03-02 12:00+00'),
    ('e', 59, '3b:20250227', FALSE, 1, 7, '2025-02-27 12:00+00'),
    ('e', 59, '3b2025030112', FALSE, 2, 7, '2025-03-01 12:00+00'),
    ('e', 60, '3c:20250228', FALSE, 2, 1, '2025-02-28 12:00+00'),
    ('e', 61, '3d:20250225', FALSE, 6, 7, '2025-02-25 12:00+00'),
    ('e', 63, '3f:20250202', FALSE, 5, 7, '2025-02-02 12:00+00'),
    ('e', 64, '40:20250227', FALSE, 2, 7, '2025-02-27 12:00+00'),
    ('e', 65, '41:20250227', FALSE, 2, 7, '2025-02-27 11:59:59.999999+00'),
    ('e', 66, '42:20250227', FALSE, 2, 7, '2025-02-27 12:00+00'),
    ('e', 66, '42:20250301', TRUE, 1, 1, '2025-03-01 12:00+00'),
    ('e', 68, '44:20250224', TRUE, 7, 7, '2025-02-24 12:00+00'),
    ('e', 69, '45:20250224', FALSE, 6, 7, '2025-02-24 12:00+00');
SELECT build.play(user_id, 1, '2025-03-03 12:00') FROM generate_series(58, 69) AS user_id;
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count FROM user_challenges WHERE user_id = 59
    ORDER BY created_at$$,
    $$VALUES ('3b:20250227', FALSE, 1), ('3b2025030112', FALSE, 3)$$,
    'the latest row is the one created last, whatever the order of the specifiers'
);
SELECT results_eq(
    $$SELECT challenge_id::text, specifier::text, current_step_count FROM user_challenges WHERE user_id = 58
    ORDER BY challenge_id$$,
    $$VALUES ('e', '3a2025030112', 3), ('u', '3a', 1)$$,
    'a row of another challenge is not the running one'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount, created_at AT TIME ZONE 'UTC'
    FROM user_challenges WHERE user_id = 60$$,
    $$VALUES ('3c:20250228', FALSE, 4, 7, '2025-02-28 12:00'::timestamp)$$,
    'a running row with an old specifier is continued, the state decides its count, and its amount is 7'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount, completed_blocknumber, completed_at
    FROM user_challenges WHERE user_id = 61$$,
    $$VALUES ('3d:20250225', TRUE, 7, 7, 4321, '2025-03-03 12:00'::timestamp)$$,
    'a running row with an old specifier completes at 7'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount, created_at AT TIME ZONE 'UTC'
    FROM user_challenges WHERE user_id = 62$$,
    $$VALUES ('3e2025030312', FALSE, 4, 7, '2025-03-03 12:00'::timestamp)$$,
    'a running row that is missing is opened with the count of the state'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count FROM user_challenges WHERE user_id = 63
    ORDER BY created_at$$,
    $$VALUES ('3f:20250202', FALSE, 5), ('3f2025030312', FALSE, 3)$$,
    'an older, broken row is never taken for the running one'
);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count FROM user_challenges WHERE user_id = 64$$,
    $$VALUES ('40:20250227', 3)$$,
    'a row exactly as old as the streak can be is the running one'
);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count FROM user_challenges WHERE user_id = 65 ORDER BY created_at$$,
    $$VALUES ('41:20250227', 2), ('412025030312', 3)$$,
    'a row older than the streak can be is not the running one'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count FROM user_challenges WHERE user_id = 66
    ORDER BY created_at$$,
    $$VALUES ('42:20250227', FALSE, 2), ('42:20250301', TRUE, 1), ('422025030312', FALSE, 3)$$,
    'a row before the latest one is not the running one'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount, completed_at FROM user_challenges
    WHERE user_id = 67$$,
    $$VALUES ('432025030312', TRUE, 7, 7, '2025-03-03 12:00'::timestamp)$$,
    'a running row that is missing on the seventh day is opened complete'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount FROM user_challenges WHERE user_id = 68
    ORDER BY created_at$$,
    $$VALUES ('44:20250224', TRUE, 7, 7), ('442025030312', TRUE, 1, 1)$$,
    'the days after a row that an earlier service completed have rows of their own'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount, completed_at FROM user_challenges
    WHERE user_id = 69$$,
    $$VALUES ('45:20250224', TRUE, 7, 7, '2025-03-03 12:00'::timestamp)$$,
    'a running row found after the seventh day is completed by that listen, which has no other row'
);

-- A state without a listen, and states that are lost: the latest row stands in for them.
SELECT build.person(user_id) FROM generate_series(90, 95) AS user_id;
INSERT INTO challenge_listen_streak (user_id, last_listen_date, listen_streak) VALUES (90, NULL, 5);
INSERT INTO user_challenges (
    challenge_id, user_id, specifier, is_complete, current_step_count, amount, created_at, completed_at
)
VALUES
    ('e', 91, '5b2025030312', FALSE, 4, 3, '2025-03-03 12:30+00', NULL),
    ('e', 92, '5c2025022512', TRUE, 7, 7, '2025-02-25 12:30+00', '2025-03-03 12:30'),
    ('e', 93, '5d2025030312', TRUE, 1, 1, '2025-03-03 12:30+00', '2025-03-03 12:30'),
    ('e', 94, '5e2025022012', TRUE, 7, 7, '2025-02-20 12:30+00', '2025-03-03 12:30'),
    ('e', 95, '5f2025030312', FALSE, 4, 7, '2025-03-03 12:30+00', NULL);
SELECT build.play(user_id, 1, '2025-03-03 12:45') FROM generate_series(90, 95) AS user_id;
SELECT build.play(user_id, 1, '2025-03-04 12:45') FROM generate_series(91, 93) AS user_id;
SELECT build.play(user_id, 1, '2025-03-05 12:30') FROM generate_series(94, 95) AS user_id;
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count, listen_streak FROM user_challenges
    INNER JOIN challenge_listen_streak USING (user_id)
    WHERE user_id = 90$$,
    $$VALUES ('5a2025030312', 1, 1)$$,
    'a state without a listen is a first listen'
);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount, created_at AT TIME ZONE 'UTC'
    FROM user_challenges WHERE user_id = 91$$,
    $$VALUES ('5b2025030312', FALSE, 2, 7, '2025-03-03 12:30'::timestamp)$$,
    'an incomplete row stands in for a lost state as its first listen, and what follows is counted into it anew'
);
SELECT results_eq(
    $$SELECT user_id, specifier::text, is_complete, current_step_count, amount FROM user_challenges
    WHERE user_id IN (92, 93) ORDER BY user_id, created_at$$,
    $$VALUES
        (92, '5c2025022512', TRUE, 7, 7),
        (92, '5c2025030412', TRUE, 1, 1),
        (93, '5d2025030312', TRUE, 1, 1),
        (93, '5d2025030412', TRUE, 1, 1)$$,
    'a complete row stands in for a lost state: nothing up to it counts again, the next day is a further one'
);
SELECT results_eq(
    $$SELECT user_id, last_listen_date, listen_streak FROM challenge_listen_streak
    WHERE user_id BETWEEN 91 AND 93 ORDER BY user_id$$,
    $$VALUES
        (91, '2025-03-04 12:45'::timestamp, 2), (92, '2025-03-04 12:45', 8), (93, '2025-03-04 12:45', 9)$$,
    'the state that is written then goes on from 1, from 7 after a seventh day, and from 8 after a further one'
);
SELECT results_eq(
    $$SELECT user_id, specifier::text, is_complete, current_step_count FROM user_challenges
    WHERE user_id IN (94, 95) ORDER BY user_id, created_at$$,
    $$VALUES
        (94, '5e2025022012', TRUE, 7),
        (94, '5e2025030512', FALSE, 1),
        (95, '5f2025030312', FALSE, 4),
        (95, '5f2025030512', FALSE, 1)$$,
    'a streak that the row says is broken begins anew'
);

-- Who takes part.
SELECT build.person(70, is_deactivated => TRUE);
SELECT build.person(71);
SELECT build.play(70, 1, '2025-03-02 12:00');
SELECT build.play(71, 1, '2025-03-02 12:00');
SELECT build.play(72, 1, '2025-03-02 12:00');
SELECT build.play(NULL, 1, '2025-03-02 12:00');
SELECT build.run(ARRAY['e']);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE user_id IN (70, 72)
    UNION ALL
    SELECT user_id::text FROM challenge_listen_streak WHERE user_id IN (70, 72)$$,
    'a listen by a deactivated or unknown user is skipped'
);
SELECT build.person(72);
UPDATE users SET is_deactivated = FALSE WHERE user_id = 70;
UPDATE users SET is_deactivated = TRUE WHERE user_id = 71;
SELECT build.play(71, 1, '2025-03-03 12:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT user_id, specifier::text, listen_streak FROM user_challenges
    INNER JOIN challenge_listen_streak USING (user_id)
    WHERE user_id IN (70, 72) ORDER BY user_id$$,
    $$VALUES (70, '462025030212', 1), (72, '482025030212', 1)$$,
    'what a user listened to before counts once the user is eligible'
);
SELECT results_eq(
    $$SELECT current_step_count, listen_streak FROM user_challenges
    INNER JOIN challenge_listen_streak USING (user_id)
    WHERE user_id = 71$$,
    $$VALUES (1, 1)$$,
    'a running streak does not move while its user is deactivated'
);
UPDATE users SET is_deactivated = FALSE WHERE user_id = 71;
SELECT build.play(70, 1, '2025-03-03 12:00');
SELECT build.play(71, 1, '2025-03-04 11:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT user_id, specifier::text, current_step_count FROM user_challenges WHERE user_id IN (70, 71)
    ORDER BY user_id$$,
    $$VALUES (70, '462025030212', 2), (71, '472025030212', 3)$$,
    'a user who comes back goes on from there, by all the listens since'
);

-- A pause is a time by the real clock; what was listened to before it counts, whenever it is committed.
SELECT build.person(user_id) FROM generate_series(80, 82) AS user_id;
SELECT build.play(80, 1, clock_timestamp() AT TIME ZONE 'UTC' - '40 hours'::interval);
SELECT build.run(ARRAY['e']);
UPDATE challenges SET active = FALSE WHERE id = 'e';
SELECT results_eq(
    $$SELECT status, rows_inserted, rows_updated FROM reconcile_challenges(ARRAY['e'])$$,
    $$VALUES ('inactive', 0::bigint, 0::bigint)$$,
    'a paused streak does nothing and says so'
);
SELECT build.play(80, 1, clock_timestamp() AT TIME ZONE 'UTC' - '20 hours'::interval);
SELECT build.play(user_id, 1, clock_timestamp() AT TIME ZONE 'UTC') FROM generate_series(80, 81) AS user_id;
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT began_at < clock_timestamp(), ended_at IS NULL FROM audius_challenges.pause$$,
    $$VALUES (TRUE, TRUE)$$,
    'a pause that goes on is a row without an end'
);
UPDATE challenges SET active = TRUE WHERE id = 'e';
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT user_id, current_step_count, listen_streak FROM user_challenges
    INNER JOIN challenge_listen_streak USING (user_id)
    WHERE user_id BETWEEN 80 AND 81$$,
    $$VALUES (80, 2, 2)$$,
    'what is listened to during a pause never counts, what was listened to before it does'
);
SELECT results_eq(
    $$SELECT began_at < ended_at, ended_at < clock_timestamp() FROM audius_challenges.pause$$,
    $$VALUES (TRUE, TRUE)$$,
    'the first run that finds the challenge active ends the pause'
);
SELECT build.play(user_id, 1, clock_timestamp() AT TIME ZONE 'UTC') FROM generate_series(80, 81) AS user_id;
SELECT build.run(ARRAY['e'], full_scan => TRUE);
SELECT results_eq(
    $$SELECT user_id, current_step_count FROM user_challenges WHERE user_id BETWEEN 80 AND 81 ORDER BY user_id$$,
    $$VALUES (80, 3), (81, 1)$$,
    'what is listened to after a pause counts, also by a full scan'
);

-- The catalog's amount and starting block are not for the streak.
UPDATE challenges SET amount = '99', starting_block = 2147483647, step_count = 3 WHERE id = 'e';
SELECT build.person(83);
SELECT build.play(83, 1, '2025-03-02 12:00'::timestamp + day * '1 day'::interval)
FROM generate_series(0, 7) AS day;
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count, amount FROM user_challenges WHERE user_id = 83
    ORDER BY specifier$$,
    $$VALUES ('532025030212', 7, 7), ('532025030912', 1, 1)$$,
    'amounts and target of the streak are fixed, whatever the catalog says'
);
UPDATE challenges SET amount = 'plenty' WHERE id = 'e';
SELECT build.person(84);
SELECT build.play(84, 1, '2025-03-02 12:00');
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['e'])$$,
    $$VALUES ('failed', 0::bigint)$$,
    'an amount that is no number is an error of the streak too'
);
UPDATE challenges SET amount = '1' WHERE id = 'e';
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count FROM user_challenges WHERE user_id = 84$$,
    $$VALUES ('542025030212', 1)$$,
    'a listen that a failed run could not count is counted by the next one'
);

-- A listen from the future waits until its time has come; infinite times concern their user alone (rule 14).
SELECT build.person(user_id) FROM generate_series(85, 89) AS user_id;
SELECT build.play(85, 1, clock_timestamp() AT TIME ZONE 'UTC' + '4 minutes'::interval);
SELECT build.play(86, 1, clock_timestamp() AT TIME ZONE 'UTC' + '6 minutes'::interval);
SELECT build.play(86, 1, clock_timestamp() AT TIME ZONE 'UTC' - '1 minute'::interval);
SELECT build.play(87, 1, 'infinity'), build.play(87, 1, '-infinity');
INSERT INTO challenge_listen_streak (user_id, last_listen_date, listen_streak)
VALUES (88, 'infinity', 3), (89, '-infinity', 3);
SELECT build.play(user_id, 1, clock_timestamp() AT TIME ZONE 'UTC') FROM generate_series(88, 89) AS user_id;
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT user_id, listen_streak, last_listen_date <= clock_timestamp() AT TIME ZONE 'UTC' + '5 minutes'::interval
    FROM challenge_listen_streak WHERE user_id BETWEEN 85 AND 89 ORDER BY user_id$$,
    $$VALUES (85, 1, TRUE), (86, 1, TRUE), (88, 3, FALSE), (89, 1, TRUE)$$,
    'a listen is there from 5 minutes before its time on, one at no time never; an infinite state stops its user alone'
);

-- Over all of these.
SELECT results_eq(
    $$SELECT count(*) FROM user_challenges
    WHERE is_complete AND completed_blocknumber IS NULL AND user_id NOT BETWEEN 92 AND 94
        AND specifier NOT LIKE '%:%'$$,
    $$VALUES (0::bigint)$$,
    'a completed streak row always has a completed_blocknumber'
);
SELECT is_empty(
    $$SELECT challenge_id, specifier FROM user_challenges_log
    WHERE operation = 'UPDATE' AND (old ->> 'is_complete')::boolean$$,
    'no complete row of a streak is ever written again'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges_log WHERE operation = 'UPDATE' AND old = new$$,
    'no row of a streak is written without a change'
);

SELECT * FROM finish();
ROLLBACK;
