CREATE SCHEMA {s};
CREATE TABLE {s}.meta (version integer NOT NULL);
INSERT INTO {s}.meta VALUES (0);
CREATE TABLE {s}.head (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        rev bigint NOT NULL DEFAULT 0,
        committed_at bigint NOT NULL DEFAULT 0,
        compacted bigint NOT NULL DEFAULT 0,
        compacted_at bigint NOT NULL DEFAULT 0,
        batches bigint NOT NULL DEFAULT 0,
        hints bigint NOT NULL DEFAULT 0
    );
INSERT INTO {s}.head DEFAULT VALUES;
CREATE TABLE {s}.versions (
        rev bigint PRIMARY KEY,
        id text COLLATE "C" NOT NULL,
        status text COLLATE "C" NOT NULL,
        committed_at bigint NOT NULL,
        commit_id text COLLATE "C" NOT NULL,
        size integer NOT NULL,
        state jsonb NOT NULL
    );
CREATE INDEX versions_id ON {s}.versions (id, rev);
CREATE TABLE {s}.states (
        id text COLLATE "C" PRIMARY KEY,
        rev bigint NOT NULL,
        due bigint,
        due_key bigint,
        due_flow text COLLATE "C",
        label_keys bigint[]
    );
CREATE INDEX states_rev ON {s}.states (rev);
CREATE INDEX states_due ON {s}.states (due_key, due) WHERE due IS NOT NULL;
CREATE TABLE {s}.labels (key bigint, rev bigint, PRIMARY KEY (key, rev));
CREATE TABLE {s}.current_labels (key bigint, rev bigint, PRIMARY KEY (key, rev));
CREATE TABLE {s}.payloads (
        rev bigint,
        checksum text COLLATE "C",
        content bytea NOT NULL,
        PRIMARY KEY (rev, checksum)
    );
CREATE TABLE {s}.payload_refs (
        payload_rev bigint,
        checksum text COLLATE "C",
        rev bigint,
        PRIMARY KEY (payload_rev, checksum, rev)
    );
CREATE INDEX payload_refs_rev ON {s}.payload_refs (rev);
COMMENT ON COLUMN {s}.head.compacted IS 'the highest revision that was ever removed';
COMMENT ON COLUMN {s}.head.compacted_at IS 'when it had been committed';
COMMENT ON COLUMN {s}.head.batches IS 'how often compaction removed something';
COMMENT ON COLUMN {s}.versions.size IS 'bytes of the state as JSON text';
COMMENT ON COLUMN {s}.head.hints IS 'how often due times came nearer without a revision';
COMMENT ON TABLE {s}.payload_refs IS 'which version (rev) refers to which payload';
COMMENT ON COLUMN {s}.labels.key IS 'the first 8 bytes of BLAKE2b of name, NUL, value';
DELETE FROM {s}.head;
DELETE FROM {s}.meta;
INSERT INTO {s}.meta (version) VALUES (1);
INSERT INTO {s}.head (singleton, rev, committed_at, compacted, compacted_at, batches, hints) VALUES (true, 19, 1700000000000, 0, 0, 0, 1);
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (1, 'paused', 'paused', 1700000000000, 'b9a3176ffbdd6f78-1', 482, '{"id": "paused", "rev": 1, "data": {"raw": {"rev": 1, "kind": "stored", "size": 2, "checksum": "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8", "content_type": "application/octet-stream"}, "order": {"rev": 1, "kind": "stored", "size": 16, "checksum": "4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac", "content_type": "application/json"}}, "labels": {"town": "Zürich", "queue": "mail"}, "transition": {"to": "work", "reason": "wait", "status": "paused"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (2, 'paused', 'paused', 1700000000000, 'b9a3176ffbdd6f78-2', 531, '{"id": "paused", "rev": 2, "data": {"raw": {"rev": 1, "kind": "stored", "size": 2, "checksum": "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8", "content_type": "application/octet-stream"}, "order": {"rev": 1, "kind": "stored", "size": 16, "checksum": "4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac", "content_type": "application/json"}}, "labels": {"town": "Zürich", "queue": "mail"}, "transition": {"to": "work", "alarm": {"at": 1700000060000, "to": "late"}, "status": "paused", "annotations": {"n": "1"}}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (3, 'shared', 'paused', 1700000000000, 'b9a3176ffbdd6f78-3', 279, '{"id": "shared", "rev": 3, "data": {"order": {"rev": 1, "kind": "stored", "size": 16, "checksum": "4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac", "content_type": "application/json"}}, "transition": {"status": "paused"}, "annotations": {"why": "copy"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (4, 'stacked', 'running', 1700000000000, 'b9a3176ffbdd6f78-3', 814, '{"id": "stacked", "rev": 4, "data": {"own": {"rev": 3, "kind": "stored", "size": 7, "checksum": "a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4", "content_type": "application/json"}}, "stacked": {"paused": {"id": "paused", "rev": 2, "data": {"raw": {"rev": 1, "kind": "stored", "size": 2, "checksum": "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8", "content_type": "application/octet-stream"}, "order": {"rev": 1, "kind": "stored", "size": 16, "checksum": "4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac", "content_type": "application/json"}}, "labels": {"town": "Zürich", "queue": "mail"}, "transition": {"to": "work", "alarm": {"at": 1700000060000, "to": "late"}, "status": "paused", "annotations": {"n": "1"}}, "committed_at": 1700000000000}}, "transition": {"to": "lost", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (5, 'delayed', 'delayed', 1700000000000, 'b9a3176ffbdd6f78-4', 166, '{"id": "delayed", "rev": 5, "labels": {"queue": "mail"}, "transition": {"to": "work", "alarm": {"at": 1700000030000, "to": "work"}, "status": "delayed"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (6, 'timed', 'running', 1700000000000, 'b9a3176ffbdd6f78-5', 138, '{"id": "timed", "rev": 6, "transition": {"to": "work", "alarm": {"at": 1700000005000, "to": "late"}, "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (7, 'leased', 'running', 1700000000000, 'b9a3176ffbdd6f78-6', 125, '{"id": "leased", "rev": 7, "labels": {"queue": "print"}, "transition": {"to": "work", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (8, 'own policy', 'running', 1700000000000, 'b9a3176ffbdd6f78-7', 172, '{"id": "own policy", "rev": 8, "retry": {"lease": 90, "backoff": 2, "max_backoff": 300.0, "max_attempts": 7}, "transition": {"to": "work", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (9, 'unretried', 'running', 1700000000000, 'b9a3176ffbdd6f78-8', 174, '{"id": "unretried", "rev": 9, "retry": {"lease": 30.0, "backoff": 1.0, "enabled": false, "max_backoff": 300.0}, "transition": {"to": "work", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (10, 'failing', 'running', 1700000000000, 'b9a3176ffbdd6f78-9', 100, '{"id": "failing", "rev": 10, "transition": {"to": "boom", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (11, 'given up', 'running', 1700000000000, 'b9a3176ffbdd6f78-10', 175, '{"id": "given up", "rev": 11, "retry": {"lease": 30.0, "backoff": 1.0, "max_backoff": 300.0, "max_attempts": 1}, "transition": {"to": "boom", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (12, 'failing', 'delayed', 1700000000000, 'b9a3176ffbdd6f78-11', 197, '{"id": "failing", "rev": 12, "transition": {"to": "boom", "alarm": {"at": 1700000001000, "to": "boom"}, "cause": "retry", "reason": "ValueError: boom", "status": "delayed", "attempt": 1}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (13, 'given up', 'ended', 1700000000000, 'b9a3176ffbdd6f78-12', 230, '{"id": "given up", "rev": 13, "retry": {"lease": 30.0, "backoff": 1.0, "max_backoff": 300.0, "max_attempts": 1}, "transition": {"cause": "retry", "reason": "gave up after 1 attempt: ValueError: boom", "status": "ended"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (14, 'ended', 'running', 1700000000000, 'b9a3176ffbdd6f78-13', 259, '{"id": "ended", "rev": 14, "data": {"x": {"rev": 14, "kind": "stored", "size": 3, "checksum": "2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777", "content_type": "application/json"}}, "transition": {"to": "work", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (15, 'ended', 'ended', 1700000000000, 'b9a3176ffbdd6f78-14', 263, '{"id": "ended", "rev": 15, "data": {"x": {"rev": 14, "kind": "stored", "size": 3, "checksum": "2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777", "content_type": "application/json"}}, "transition": {"reason": "worked", "status": "ended"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (16, 'released', 'running', 1700000000000, '822630af3240ad03-1', 101, '{"id": "released", "rev": 16, "transition": {"to": "hang", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (17, 'flowstate.recovery/default', 'running', 1700000000000, '6caa9a4177b5b24d-1', 224, '{"id": "flowstate.recovery/default", "rev": 17, "retry": {"lease": 10.0, "backoff": 1.0, "max_backoff": 300.0}, "labels": {"leader": "a/1"}, "transition": {"to": "flowstate.recovery/default", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (18, 'flowstate.recovery/night', 'running', 1700000000000, '6caa9a4177b5b24d-2', 218, '{"id": "flowstate.recovery/night", "rev": 18, "retry": {"lease": 10, "backoff": 1.0, "max_backoff": 300.0}, "labels": {"leader": "b/1"}, "transition": {"to": "flowstate.recovery/night", "status": "running"}, "committed_at": 1700000000000}');
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) VALUES (19, 'flowstate.recovery/default', 'paused', 1700000000000, '6caa9a4177b5b24d-3', 221, '{"id": "flowstate.recovery/default", "rev": 19, "retry": {"lease": 10.0, "backoff": 1.0, "max_backoff": 300.0}, "transition": {"to": "flowstate.recovery/default", "reason": "a/1 has left", "status": "paused"}, "committed_at": 1700000000000}');
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('delayed', 5, 1700000030000,  -5421042622185147307, 'work', '{-8022798432840742131}'::int8[]);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('ended', 15, NULL, NULL, NULL, NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('failing', 12, 1700000001000, 6425039272314622391, 'boom', NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('flowstate.recovery/default', 19, NULL, NULL, NULL, NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('flowstate.recovery/night', 18, 1700000010000, 7663217906775942578, 'flowstate.recovery/night', '{4943192508481043755}'::int8[]);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('given up', 13, NULL, NULL, NULL, NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('leased', 7, 1700000030000,  -5421042622185147307, 'work', '{6710396356948202264}'::int8[]);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('own policy', 8, 1700000090000,  -5421042622185147307, 'work', NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('paused', 2, 1700000060000,  -2659168268028540616, 'late', '{-8022798432840742131,5884154561749456537}'::int8[]);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('released', 16,  -251702300800000, 3780557113702912077, 'hang', NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('shared', 3, NULL, NULL, NULL, NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('stacked', 4, 1700000030000,  -4215546915379618497, 'lost', NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('timed', 6, 1700000005000,  -2659168268028540616, 'late', NULL);
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) VALUES ('unretried', 9, NULL, NULL, NULL, NULL);
INSERT INTO {s}.labels (key, rev) VALUES ( -8022798432840742131, 1);
INSERT INTO {s}.labels (key, rev) VALUES ( -8022798432840742131, 2);
INSERT INTO {s}.labels (key, rev) VALUES ( -8022798432840742131, 5);
INSERT INTO {s}.labels (key, rev) VALUES ( -556261947771065505, 17);
INSERT INTO {s}.labels (key, rev) VALUES (4943192508481043755, 18);
INSERT INTO {s}.labels (key, rev) VALUES (5884154561749456537, 1);
INSERT INTO {s}.labels (key, rev) VALUES (5884154561749456537, 2);
INSERT INTO {s}.labels (key, rev) VALUES (6710396356948202264, 7);
INSERT INTO {s}.current_labels (key, rev) VALUES ( -8022798432840742131, 2);
INSERT INTO {s}.current_labels (key, rev) VALUES ( -8022798432840742131, 5);
INSERT INTO {s}.current_labels (key, rev) VALUES (4943192508481043755, 18);
INSERT INTO {s}.current_labels (key, rev) VALUES (5884154561749456537, 2);
INSERT INTO {s}.current_labels (key, rev) VALUES (6710396356948202264, 7);
INSERT INTO {s}.payloads (rev, checksum, content) VALUES (1, '4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac', '\x7b226974656d223a227065617273227d'::bytea);
INSERT INTO {s}.payloads (rev, checksum, content) VALUES (1, '06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8', '\x00ff'::bytea);
INSERT INTO {s}.payloads (rev, checksum, content) VALUES (3, 'a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4', '\x5b312c322c335d'::bytea);
INSERT INTO {s}.payloads (rev, checksum, content) VALUES (14, '2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777', '\x227922'::bytea);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (1, '06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8', 1);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (1, '06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8', 2);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (1, '06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8', 4);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (1, '4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac', 1);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (1, '4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac', 2);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (1, '4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac', 3);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (1, '4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac', 4);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (3, 'a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4', 4);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (14, '2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777', 14);
INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) VALUES (14, '2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777', 15);
