BEGIN TRANSACTION;
CREATE TABLE events (
	job_number INTEGER NOT NULL, 
	sequence INTEGER NOT NULL, 
	create_time BIGINT NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	epoch INTEGER, 
	attempt INTEGER, 
	is_kept BOOLEAN, 
	body TEXT NOT NULL, 
	PRIMARY KEY (job_number, sequence), 
	FOREIGN KEY(job_number) REFERENCES jobs (number)
);
INSERT INTO "events" VALUES(1,1,1767225600000000,'queued',NULL,NULL,NULL,'{"spec": {"dataset": "tiny", "blocks": 2, "batch_norm": false, "epochs": 51, "batch_size": 128, "learning_rate": 0.01, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "seed": 0}, "queue_position": 0}');
INSERT INTO "events" VALUES(2,1,1767225600000000,'queued',NULL,NULL,NULL,'{"spec": {"dataset": "tiny", "blocks": 2, "batch_norm": false, "epochs": 51, "batch_size": 128, "learning_rate": 0.01, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "seed": 0}, "queue_position": 1}');
INSERT INTO "events" VALUES(1,2,1767225600000000,'started',NULL,NULL,NULL,'{"device": "cpu", "device_name": "a processor", "train_images": 400, "test_images": 200, "class_names": ["ant", "bee"], "parameters": 1, "dataset_fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "environment": {"threads": 1, "leadline_version": "0.1.0", "torch_version": "2", "python_version": "3.11"}}');
INSERT INTO "events" VALUES(1,3,1767225600000000,'epoch',1,1,1,'{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0, "test_accuracy": 0.5, "learning_rate": 0.01, "seconds": 1.0, "images_per_second": 400.0, "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000001"}');
INSERT INTO "events" VALUES(1,4,1767225600000000,'finished',NULL,NULL,NULL,'{"state": "cancelled", "completed_epochs": 1, "best_epoch": 1, "best_test_accuracy": 0.5, "failure": null}');
CREATE TABLE jobs (
	number INTEGER NOT NULL, 
	job_id VARCHAR(32) NOT NULL, 
	request_id VARCHAR(36), 
	spec TEXT NOT NULL, 
	dataset VARCHAR(64) NOT NULL, 
	blocks INTEGER NOT NULL, 
	batch_norm BOOLEAN NOT NULL, 
	options TEXT NOT NULL, 
	priority INTEGER NOT NULL, 
	deadline BIGINT, 
	state VARCHAR(16) NOT NULL, 
	create_time BIGINT NOT NULL, 
	start_time BIGINT, 
	end_time BIGINT, 
	completed_epochs INTEGER NOT NULL, 
	best_epoch INTEGER NOT NULL, 
	best_test_accuracy FLOAT NOT NULL, 
	failure_reason VARCHAR(64), 
	failure_message TEXT, 
	device VARCHAR(64) NOT NULL, 
	attempts INTEGER NOT NULL, 
	latest_sequence INTEGER NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (job_id), 
	UNIQUE (request_id)
);
INSERT INTO "jobs" VALUES(1,'a',NULL,'{"dataset": "tiny", "blocks": 2, "batch_norm": false, "epochs": 51, "batch_size": 128, "learning_rate": 0.01, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "seed": 0}','tiny',2,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'cancelled',1767225600000000,1767225600000000,1767225600000000,1,1,0.5,NULL,NULL,'cpu',1,4);
INSERT INTO "jobs" VALUES(2,'b',NULL,'{"dataset": "tiny", "blocks": 2, "batch_norm": false, "epochs": 51, "batch_size": 128, "learning_rate": 0.01, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "seed": 0}','tiny',2,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'queued',1767225600000000,NULL,NULL,0,0,0.0,NULL,NULL,'',0,1);
CREATE INDEX jobs_by_variant ON jobs (dataset, blocks, batch_norm, best_test_accuracy);
CREATE INDEX jobs_by_state ON jobs (state, priority, number);
CREATE INDEX events_by_kind ON events (job_number, kind, epoch);
COMMIT;
PRAGMA user_version=1;
