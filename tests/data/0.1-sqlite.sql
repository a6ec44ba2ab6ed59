PRAGMA application_id = 1718382455;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE compacted (rev INTEGER NOT NULL, committed_at INTEGER NOT NULL);
INSERT INTO "compacted" VALUES(0,0);
CREATE TABLE current_labels (key TEXT, value TEXT, rev INTEGER, PRIMARY KEY (key, value, rev)) WITHOUT ROWID;
INSERT INTO "current_labels" VALUES('leader','b/1',18);
INSERT INTO "current_labels" VALUES('queue','mail',2);
INSERT INTO "current_labels" VALUES('queue','mail',5);
INSERT INTO "current_labels" VALUES('queue','print',7);
INSERT INTO "current_labels" VALUES('town','Zürich',2);
CREATE TABLE labels (key TEXT, value TEXT, rev INTEGER, PRIMARY KEY (key, value, rev)) WITHOUT ROWID;
INSERT INTO "labels" VALUES('leader','a/1',17);
INSERT INTO "labels" VALUES('leader','b/1',18);
INSERT INTO "labels" VALUES('queue','mail',1);
INSERT INTO "labels" VALUES('queue','mail',2);
INSERT INTO "labels" VALUES('queue','mail',5);
INSERT INTO "labels" VALUES('queue','print',7);
INSERT INTO "labels" VALUES('town','Zürich',1);
INSERT INTO "labels" VALUES('town','Zürich',2);
CREATE TABLE payload_references (payload_rev INTEGER, checksum TEXT, rev INTEGER, PRIMARY KEY (payload_rev, checksum, rev)) WITHOUT ROWID;
INSERT INTO "payload_references" VALUES(1,'06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8',1);
INSERT INTO "payload_references" VALUES(1,'06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8',2);
INSERT INTO "payload_references" VALUES(1,'06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8',4);
INSERT INTO "payload_references" VALUES(1,'4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac',1);
INSERT INTO "payload_references" VALUES(1,'4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac',2);
INSERT INTO "payload_references" VALUES(1,'4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac',3);
INSERT INTO "payload_references" VALUES(1,'4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac',4);
INSERT INTO "payload_references" VALUES(3,'a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4',4);
INSERT INTO "payload_references" VALUES(14,'2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777',14);
INSERT INTO "payload_references" VALUES(14,'2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777',15);
CREATE TABLE "payloads" (
   "rev" INTEGER,
   "checksum" TEXT,
   "content" BLOB NOT NULL,
   PRIMARY KEY ("rev", "checksum")
);
INSERT INTO "payloads" VALUES(1,'4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac',X'7B226974656D223A227065617273227D');
INSERT INTO "payloads" VALUES(1,'06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8',X'00FF');
INSERT INTO "payloads" VALUES(3,'a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4',X'5B312C322C335D');
INSERT INTO "payloads" VALUES(14,'2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777',X'227922');
CREATE TABLE "versions" (
   "rev" INTEGER PRIMARY KEY,
   "id" TEXT NOT NULL,
   "status" TEXT NOT NULL,
   "labels" TEXT,
   "committed_at" INTEGER NOT NULL,
   "commit_id" TEXT NOT NULL,
   "current" INTEGER NOT NULL,
   "due" INTEGER,
   "due_flow" TEXT,
   "state" TEXT NOT NULL
, payloads TEXT);
INSERT INTO "versions" VALUES(1,'paused','paused','{"queue": "mail", "town": "Zürich"}',1700000000000,'583011bf7090a733-1',0,NULL,NULL,'{"id":"paused","rev":1,"labels":{"queue":"mail","town":"Zürich"},"data":{"order":{"kind":"stored","rev":1,"size":16,"content_type":"application/json","checksum":"4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac"},"raw":{"kind":"stored","rev":1,"size":2,"content_type":"application/octet-stream","checksum":"06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8"}},"transition":{"to":"work","status":"paused","reason":"wait"},"committed_at":1700000000000}','[[1, "4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac", 16], [1, "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8", 2]]');
INSERT INTO "versions" VALUES(2,'paused','paused','{"queue": "mail", "town": "Zürich"}',1700000000000,'583011bf7090a733-2',1,1700000060000,'late','{"id":"paused","rev":2,"labels":{"queue":"mail","town":"Zürich"},"data":{"order":{"kind":"stored","rev":1,"size":16,"content_type":"application/json","checksum":"4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac"},"raw":{"kind":"stored","rev":1,"size":2,"content_type":"application/octet-stream","checksum":"06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8"}},"transition":{"to":"work","status":"paused","alarm":{"at":1700000060000,"to":"late"},"annotations":{"n":"1"}},"committed_at":1700000000000}','[[1, "4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac", 16], [1, "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8", 2]]');
INSERT INTO "versions" VALUES(3,'shared','paused',NULL,1700000000000,'583011bf7090a733-3',1,NULL,NULL,'{"id":"shared","rev":3,"annotations":{"why":"copy"},"data":{"order":{"kind":"stored","rev":1,"size":16,"content_type":"application/json","checksum":"4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac"}},"transition":{"status":"paused"},"committed_at":1700000000000}','[[1, "4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac", 16]]');
INSERT INTO "versions" VALUES(4,'stacked','running',NULL,1700000000000,'583011bf7090a733-3',1,1700000030000,'lost','{"id":"stacked","rev":4,"data":{"own":{"kind":"stored","rev":3,"size":7,"content_type":"application/json","checksum":"a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4"}},"stacked":{"paused":{"id":"paused","rev":2,"labels":{"queue":"mail","town":"Zürich"},"data":{"order":{"kind":"stored","rev":1,"size":16,"content_type":"application/json","checksum":"4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac"},"raw":{"kind":"stored","rev":1,"size":2,"content_type":"application/octet-stream","checksum":"06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8"}},"transition":{"to":"work","status":"paused","alarm":{"at":1700000060000,"to":"late"},"annotations":{"n":"1"}},"committed_at":1700000000000}},"transition":{"to":"lost","status":"running"},"committed_at":1700000000000}','[[3, "a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4", 7], [1, "4df78bb8ef9d7406ab7da79bbc72277dc8266ff3e3febd87f0d0cbab5c6b41ac", 16], [1, "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8", 2]]');
INSERT INTO "versions" VALUES(5,'delayed','delayed','{"queue": "mail"}',1700000000000,'583011bf7090a733-4',1,1700000030000,'work','{"id":"delayed","rev":5,"labels":{"queue":"mail"},"transition":{"to":"work","status":"delayed","alarm":{"at":1700000030000,"to":"work"}},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(6,'timed','running',NULL,1700000000000,'583011bf7090a733-5',1,1700000005000,'late','{"id":"timed","rev":6,"transition":{"to":"work","status":"running","alarm":{"at":1700000005000,"to":"late"}},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(7,'leased','running','{"queue": "print"}',1700000000000,'583011bf7090a733-6',1,1700000030000,'work','{"id":"leased","rev":7,"labels":{"queue":"print"},"transition":{"to":"work","status":"running"},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(8,'own policy','running',NULL,1700000000000,'583011bf7090a733-7',1,1700000090000,'work','{"id":"own policy","rev":8,"transition":{"to":"work","status":"running"},"retry":{"lease":90,"max_attempts":7,"backoff":2,"max_backoff":300.0},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(9,'unretried','running',NULL,1700000000000,'583011bf7090a733-8',1,NULL,NULL,'{"id":"unretried","rev":9,"transition":{"to":"work","status":"running"},"retry":{"lease":30.0,"backoff":1.0,"max_backoff":300.0,"enabled":false},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(10,'failing','running',NULL,1700000000000,'583011bf7090a733-9',0,NULL,NULL,'{"id":"failing","rev":10,"transition":{"to":"boom","status":"running"},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(11,'given up','running',NULL,1700000000000,'583011bf7090a733-10',0,NULL,NULL,'{"id":"given up","rev":11,"transition":{"to":"boom","status":"running"},"retry":{"lease":30.0,"max_attempts":1,"backoff":1.0,"max_backoff":300.0},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(12,'failing','delayed',NULL,1700000000000,'583011bf7090a733-11',1,1700000001000,'boom','{"id":"failing","rev":12,"transition":{"to":"boom","status":"delayed","cause":"retry","attempt":1,"reason":"ValueError: boom","alarm":{"at":1700000001000,"to":"boom"}},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(13,'given up','ended',NULL,1700000000000,'583011bf7090a733-12',1,NULL,NULL,'{"id":"given up","rev":13,"transition":{"status":"ended","cause":"retry","reason":"gave up after 1 attempt: ValueError: boom"},"retry":{"lease":30.0,"max_attempts":1,"backoff":1.0,"max_backoff":300.0},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(14,'ended','running',NULL,1700000000000,'583011bf7090a733-13',0,NULL,NULL,'{"id":"ended","rev":14,"data":{"x":{"kind":"stored","rev":14,"size":3,"content_type":"application/json","checksum":"2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777"}},"transition":{"to":"work","status":"running"},"committed_at":1700000000000}','[[14, "2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777", 3]]');
INSERT INTO "versions" VALUES(15,'ended','ended',NULL,1700000000000,'583011bf7090a733-14',1,NULL,NULL,'{"id":"ended","rev":15,"data":{"x":{"kind":"stored","rev":14,"size":3,"content_type":"application/json","checksum":"2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777"}},"transition":{"status":"ended","reason":"worked"},"committed_at":1700000000000}','[[14, "2bc983a5942276eb00a75e2113a69694318cd28c7de0fc83c0598d9db50eb777", 3]]');
INSERT INTO "versions" VALUES(16,'released','running',NULL,1700000000000,'a98c972cbb588d6c-1',1,-251702300800000,'hang','{"id":"released","rev":16,"transition":{"to":"hang","status":"running"},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(17,'flowstate.recovery/default','running','{"leader": "a/1"}',1700000000000,'5c87b3b2ba027542-1',0,NULL,NULL,'{"id":"flowstate.recovery/default","rev":17,"labels":{"leader":"a/1"},"transition":{"to":"flowstate.recovery/default","status":"running"},"retry":{"lease":10.0,"backoff":1.0,"max_backoff":300.0},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(18,'flowstate.recovery/night','running','{"leader": "b/1"}',1700000000000,'5c87b3b2ba027542-2',1,1700000010000,'flowstate.recovery/night','{"id":"flowstate.recovery/night","rev":18,"labels":{"leader":"b/1"},"transition":{"to":"flowstate.recovery/night","status":"running"},"retry":{"lease":10,"backoff":1.0,"max_backoff":300.0},"committed_at":1700000000000}',NULL);
INSERT INTO "versions" VALUES(19,'flowstate.recovery/default','paused',NULL,1700000000000,'5c87b3b2ba027542-3',1,NULL,NULL,'{"id":"flowstate.recovery/default","rev":19,"transition":{"to":"flowstate.recovery/default","status":"paused","reason":"a/1 has left"},"retry":{"lease":10.0,"backoff":1.0,"max_backoff":300.0},"committed_at":1700000000000}',NULL);
CREATE INDEX "versions_id"
    ON "versions" ("id");
CREATE INDEX versions_current ON versions (rev) WHERE current = 1;
CREATE INDEX versions_due ON versions (due_flow, due) WHERE due IS NOT NULL;
CREATE VIEW "states" AS SELECT id, rev, status, state ->> '$.transition.to' AS flow, labels, datetime(committed_at / 1000, 'unixepoch') AS committed, datetime(due / 1000, 'unixepoch') AS due, state FROM versions WHERE current = 1;
COMMIT;
