SET GLOBAL binlog_checksum = NONE;
CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20));
INSERT INTO t VALUES (1, 'unchecked');
