SET GLOBAL log_bin_compress = ON; SET GLOBAL log_bin_compress_min_len = 10;
CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(200), comments_that_make_the_statement_long_enough INT);
INSERT INTO t (id, v) VALUES (1, REPEAT('a', 200)), (2, REPEAT('b', 200));
UPDATE t SET v = REPEAT('c', 200) WHERE id = 1;
DELETE FROM t WHERE id = 2;
INSERT INTO t (id, v) SELECT seq, REPEAT('z', 100) FROM seq_100_to_2099;
SET GLOBAL log_bin_compress = OFF;
INSERT INTO t (id) VALUES (3);
