CREATE TABLE vectors (id INT PRIMARY KEY, v VECTOR(3), t TEXT, u UUID, c CHAR(3), g POINT, l VARCHAR(5) CHARACTER SET latin1);
INSERT INTO vectors VALUES (1, VEC_FromText('[1,2.5,-3]'), 'one', '123e4567-e89b-12d3-a456-426614174000', 'abc', POINT(1, 2), 'l');
BEGIN; UPDATE vectors SET t = 'two' WHERE id = 1; DELETE FROM vectors WHERE id = 1; COMMIT;
XA START 'tx1'; INSERT INTO vectors (id) VALUES (2); XA END 'tx1'; XA PREPARE 'tx1'; XA COMMIT 'tx1';
SET SESSION binlog_row_image = FULL_NODUP; UPDATE vectors SET t = 'three' WHERE id = 2;
SET SESSION binlog_row_image = MINIMAL; UPDATE vectors SET t = 'four' WHERE id = 2;
