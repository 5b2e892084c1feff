BEGIN TRANSACTION;
CREATE TABLE deleted_jobs (number INTEGER NOT NULL PRIMARY KEY, job_id VARCHAR(32));
CREATE TABLE events (
	job_number INTEGER NOT NULL, 
	sequence INTEGER NOT NULL, 
	create_time BIGINT NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	epoch INTEGER, 
	test_accuracy FLOAT, 
	attempt INTEGER, 
	is_kept BOOLEAN, 
	body TEXT NOT NULL, 
	PRIMARY KEY (job_number, sequence), 
	FOREIGN KEY(job_number) REFERENCES jobs (number)
);
INSERT INTO "events" VALUES(1,1,1767225600000000,'queued',NULL,NULL,NULL,NULL,'{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":51,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"queue_position":0}');
INSERT INTO "events" VALUES(1,2,1767225600000000,'started',NULL,NULL,NULL,NULL,'{"device": "cpu", "device_name": "a processor", "train_images": 400, "test_images": 200, "class_names": ["ant", "bee"], "parameters": 15944, "dataset_fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "environment": {"threads": 1, "leadline_version": "0.1.0", "torch_version": "2", "python_version": "3.11"}, "diagnosis": []}');
INSERT INTO "events" VALUES(1,3,1767225600000000,'epoch',1,0.5,1,1,'{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0, "test_accuracy": 0.5, "learning_rate": 0.01, "seconds": 1.0, "images_per_second": 400.0, "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000001", "diagnosis": []}');
INSERT INTO "events" VALUES(1,4,1767225600000000,'finished',NULL,NULL,NULL,NULL,'{"state": "succeeded", "completed_epochs": 1, "best_epoch": 1, "best_test_accuracy": 0.5, "stopped_early": true, "failure": null, "cancellation": null}');
INSERT INTO "events" VALUES(2,1,1767225600000000,'queued',NULL,NULL,NULL,NULL,'{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"queue_position":0}');
INSERT INTO "events" VALUES(3,1,1767225600000000,'queued',NULL,NULL,NULL,NULL,'{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":1,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"queue_position":1}');
INSERT INTO "events" VALUES(4,1,1767225600000000,'queued',NULL,NULL,NULL,NULL,'{"spec":{"dataset":"tiny","blocks":4,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"queue_position":2}');
INSERT INTO "events" VALUES(5,1,1767225600000000,'queued',NULL,NULL,NULL,NULL,'{"spec":{"dataset":"tiny","blocks":4,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":1,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"queue_position":3}');
INSERT INTO "events" VALUES(2,2,1767225600000000,'started',NULL,NULL,NULL,NULL,'{"device": "cpu", "device_name": "a processor", "train_images": 400, "test_images": 200, "class_names": ["ant", "bee"], "parameters": 15944, "dataset_fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "environment": {"threads": 1, "leadline_version": "0.1.0", "torch_version": "2", "python_version": "3.11"}, "diagnosis": []}');
INSERT INTO "events" VALUES(2,3,1767225600000000,'epoch',1,0.25,1,1,'{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.25, "test_loss": 1.0, "test_accuracy": 0.25, "learning_rate": 0.01, "seconds": 1.0, "images_per_second": 400.0, "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000001", "diagnosis": []}');
INSERT INTO "events" VALUES(2,4,1767225600000000,'epoch',2,0.75,1,1,'{"epoch": 2, "train_loss": 1.0, "train_accuracy": 0.75, "test_loss": 1.0, "test_accuracy": 0.75, "learning_rate": 0.01, "seconds": 1.0, "images_per_second": 400.0, "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000002", "diagnosis": []}');
INSERT INTO "events" VALUES(2,5,1767225600000000,'finished',NULL,NULL,NULL,NULL,'{"state": "succeeded", "completed_epochs": 2, "best_epoch": 2, "best_test_accuracy": 0.75, "stopped_early": true, "failure": null, "cancellation": null}');
INSERT INTO "events" VALUES(3,2,1767225600000000,'started',NULL,NULL,NULL,NULL,'{"device": "cpu", "device_name": "a processor", "train_images": 400, "test_images": 200, "class_names": ["ant", "bee"], "parameters": 15944, "dataset_fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "environment": {"threads": 1, "leadline_version": "0.1.0", "torch_version": "2", "python_version": "3.11"}, "diagnosis": []}');
INSERT INTO "events" VALUES(3,3,1767225600000000,'epoch',1,0.5,1,1,'{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0, "test_accuracy": 0.5, "learning_rate": 0.01, "seconds": 1.0, "images_per_second": 400.0, "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000001", "diagnosis": []}');
INSERT INTO "events" VALUES(3,4,1767225600000000,'finished',NULL,NULL,NULL,NULL,'{"state": "succeeded", "completed_epochs": 1, "best_epoch": 1, "best_test_accuracy": 0.5, "stopped_early": true, "failure": null, "cancellation": null}');
INSERT INTO "events" VALUES(4,2,1767225600000000,'started',NULL,NULL,NULL,NULL,'{"device": "cpu", "device_name": "a processor", "train_images": 400, "test_images": 200, "class_names": ["ant", "bee"], "parameters": 15944, "dataset_fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "environment": {"threads": 1, "leadline_version": "0.1.0", "torch_version": "2", "python_version": "3.11"}, "diagnosis": []}');
INSERT INTO "events" VALUES(4,3,1767225600000000,'epoch',1,0.5,1,1,'{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0, "test_accuracy": 0.5, "learning_rate": 0.01, "seconds": 1.0, "images_per_second": 400.0, "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000001", "diagnosis": []}');
INSERT INTO "events" VALUES(4,4,1767225600000000,'finished',NULL,NULL,NULL,NULL,'{"state": "succeeded", "completed_epochs": 1, "best_epoch": 1, "best_test_accuracy": 0.5, "stopped_early": true, "failure": null, "cancellation": null}');
INSERT INTO "events" VALUES(6,1,1767225600000000,'queued',NULL,NULL,NULL,NULL,'{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"queue_position":1}');
INSERT INTO "events" VALUES(7,1,1767225600000000,'queued',NULL,NULL,NULL,NULL,'{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":true,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"queue_position":2}');
INSERT INTO "events" VALUES(6,2,1767225600000000,'started',NULL,NULL,NULL,NULL,'{"device": "cpu", "device_name": "a processor", "train_images": 400, "test_images": 200, "class_names": ["ant", "bee"], "parameters": 15944, "dataset_fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "environment": {"threads": 1, "leadline_version": "0.1.0", "torch_version": "2", "python_version": "3.11"}, "diagnosis": []}');
INSERT INTO "events" VALUES(6,3,1767225600000000,'epoch',1,0.5,1,1,'{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0, "test_accuracy": 0.5, "learning_rate": 0.01, "seconds": 1.0, "images_per_second": 400.0, "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000001", "diagnosis": []}');
INSERT INTO "events" VALUES(6,4,1767225600000000,'finished',NULL,NULL,NULL,NULL,'{"state": "succeeded", "completed_epochs": 1, "best_epoch": 1, "best_test_accuracy": 0.5, "stopped_early": true, "failure": null, "cancellation": null}');
INSERT INTO "events" VALUES(7,2,1767225600000000,'started',NULL,NULL,NULL,NULL,'{"device": "cpu", "device_name": "a processor", "train_images": 400, "test_images": 200, "class_names": ["ant", "bee"], "parameters": 15944, "dataset_fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "environment": {"threads": 1, "leadline_version": "0.1.0", "torch_version": "2", "python_version": "3.11"}, "diagnosis": []}');
INSERT INTO "events" VALUES(7,3,1767225600000000,'epoch',1,0.5,1,1,'{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0, "test_accuracy": 0.5, "learning_rate": 0.01, "seconds": 1.0, "images_per_second": 400.0, "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000001", "diagnosis": []}');
INSERT INTO "events" VALUES(7,4,1767225600000000,'finished',NULL,NULL,NULL,NULL,'{"state": "succeeded", "completed_epochs": 1, "best_epoch": 1, "best_test_accuracy": 0.5, "stopped_early": true, "failure": null, "cancellation": null}');
CREATE TABLE job_counts (
        sweep_id VARCHAR(32) NOT NULL,
        state VARCHAR(16) NOT NULL,
        jobs INTEGER NOT NULL,
        begun INTEGER NOT NULL,
        median_stopped INTEGER NOT NULL,
        PRIMARY KEY (sweep_id, state)
    );
INSERT INTO "job_counts" VALUES('','succeeded',6,6,0);
INSERT INTO "job_counts" VALUES('d','succeeded',2,2,0);
INSERT INTO "job_counts" VALUES('s','queued',1,0,0);
INSERT INTO "job_counts" VALUES('s','succeeded',3,3,0);
INSERT INTO "job_counts" VALUES('','queued',1,0,0);
CREATE TABLE jobs (
	number INTEGER NOT NULL, 
	job_id VARCHAR(32) NOT NULL, 
	request_id VARCHAR(36), 
	sweep_id VARCHAR(32), 
	spec TEXT NOT NULL, 
	dataset VARCHAR(64) NOT NULL, 
	blocks INTEGER NOT NULL, 
	block_convolutions INTEGER NOT NULL, 
	batch_norm BOOLEAN NOT NULL, 
	residual BOOLEAN NOT NULL, 
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
	cancel_reason VARCHAR(64), 
	cancel_message TEXT, 
	device VARCHAR(64) NOT NULL, 
	attempts INTEGER NOT NULL, 
	latest_sequence INTEGER NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (job_id), 
	UNIQUE (request_id), 
	FOREIGN KEY(sweep_id) REFERENCES sweeps (sweep_id)
);
INSERT INTO "jobs" VALUES(1,'a',NULL,NULL,'{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":51,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false}','tiny',2,2,0,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'succeeded',1767225600000000,1767225600000000,1767225600000000,1,1,0.5,NULL,NULL,NULL,NULL,'cpu',1,4);
INSERT INTO "jobs" VALUES(2,'s0',NULL,'s','{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false}','tiny',2,2,0,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'succeeded',1767225600000000,1767225600000000,1767225600000000,2,2,0.75,NULL,NULL,NULL,NULL,'cpu',1,5);
INSERT INTO "jobs" VALUES(3,'s1',NULL,'s','{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":1,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false}','tiny',2,2,0,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'succeeded',1767225600000000,1767225600000000,1767225600000000,1,1,0.5,NULL,NULL,NULL,NULL,'cpu',1,4);
INSERT INTO "jobs" VALUES(4,'s2',NULL,'s','{"dataset":"tiny","blocks":4,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false}','tiny',4,2,0,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'succeeded',1767225600000000,1767225600000000,1767225600000000,1,1,0.5,NULL,NULL,NULL,NULL,'cpu',1,4);
INSERT INTO "jobs" VALUES(5,'s3',NULL,'s','{"dataset":"tiny","blocks":4,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":1,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false}','tiny',4,2,0,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'queued',1767225600000000,NULL,NULL,0,0,0.0,NULL,NULL,NULL,NULL,'',0,1);
INSERT INTO "jobs" VALUES(6,'d0',NULL,'d','{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false}','tiny',2,2,0,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'succeeded',1767225600000000,1767225600000000,1767225600000000,1,1,0.5,NULL,NULL,NULL,NULL,'cpu',1,4);
INSERT INTO "jobs" VALUES(7,'d1',NULL,'d','{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":true,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false}','tiny',2,2,1,0,'{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',0,NULL,'succeeded',1767225600000000,1767225600000000,1767225600000000,1,1,0.5,NULL,NULL,NULL,NULL,'cpu',1,4);
CREATE TABLE sweep_counts (
        state VARCHAR(16) NOT NULL PRIMARY KEY,
        sweeps INTEGER NOT NULL
    );
INSERT INTO "sweep_counts" VALUES('succeeded',1);
CREATE TABLE sweep_events (
	sweep_id VARCHAR(32) NOT NULL, 
	sequence INTEGER NOT NULL, 
	create_time BIGINT NOT NULL, 
	body TEXT, 
	job_number INTEGER, 
	job_sequence INTEGER, 
	PRIMARY KEY (sweep_id, sequence), 
	FOREIGN KEY(sweep_id) REFERENCES sweeps (sweep_id), 
	FOREIGN KEY(job_number) REFERENCES jobs (number)
);
INSERT INTO "sweep_events" VALUES('s',1,1767225600000000,'{"grid":{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"axes":[{"field":"blocks","values":[2,4]},{"field":"seed","values":[0,1]}]},"jobs":[["s0",{"blocks":2,"seed":0}],["s1",{"blocks":2,"seed":1}],["s2",{"blocks":4,"seed":0}],["s3",{"blocks":4,"seed":1}]]}',NULL,NULL);
INSERT INTO "sweep_events" VALUES('s',2,1767225600000000,NULL,2,2);
INSERT INTO "sweep_events" VALUES('s',3,1767225600000000,NULL,2,3);
INSERT INTO "sweep_events" VALUES('s',4,1767225600000000,NULL,2,4);
INSERT INTO "sweep_events" VALUES('s',5,1767225600000000,NULL,2,5);
INSERT INTO "sweep_events" VALUES('s',6,1767225600000000,NULL,3,2);
INSERT INTO "sweep_events" VALUES('s',7,1767225600000000,NULL,3,3);
INSERT INTO "sweep_events" VALUES('s',8,1767225600000000,NULL,3,4);
INSERT INTO "sweep_events" VALUES('s',9,1767225600000000,NULL,4,2);
INSERT INTO "sweep_events" VALUES('s',10,1767225600000000,NULL,4,3);
INSERT INTO "sweep_events" VALUES('s',11,1767225600000000,NULL,4,4);
INSERT INTO "sweep_events" VALUES('d',1,1767225600000000,'{"grid":{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"axes":[{"field":"batch_norm","values":[false,true]}]},"jobs":[["d0",{"batch_norm":false}],["d1",{"batch_norm":true}]]}',NULL,NULL);
INSERT INTO "sweep_events" VALUES('d',2,1767225600000000,NULL,6,2);
INSERT INTO "sweep_events" VALUES('d',3,1767225600000000,NULL,6,3);
INSERT INTO "sweep_events" VALUES('d',4,1767225600000000,NULL,6,4);
INSERT INTO "sweep_events" VALUES('d',5,1767225600000000,NULL,7,2);
INSERT INTO "sweep_events" VALUES('d',6,1767225600000000,NULL,7,3);
INSERT INTO "sweep_events" VALUES('d',7,1767225600000000,NULL,7,4);
INSERT INTO "sweep_events" VALUES('d',8,1767225600000000,'{"state": "succeeded", "counts": {"by_state": {"queued": 0, "running": 0, "paused": 0, "succeeded": 2, "failed": 0, "cancelled": 0}, "begun": 2, "median_stopped": 0}, "table": {"variants": [{"point": {"batch_norm": false}, "job_ids": ["d0"], "finished_jobs": 1, "best": {"count": 1, "mean": 0.5, "deviation": null, "least": 0.5, "most": 0.5}, "last": {"count": 1, "mean": 0.5, "deviation": null, "least": 0.5, "most": 0.5}, "best_job_id": "d0"}, {"point": {"batch_norm": true}, "job_ids": ["d1"], "finished_jobs": 1, "best": {"count": 1, "mean": 0.5, "deviation": null, "least": 0.5, "most": 0.5}, "last": {"count": 1, "mean": 0.5, "deviation": null, "least": 0.5, "most": 0.5}, "best_job_id": "d1"}], "best_depths": []}}',NULL,NULL);
CREATE TABLE sweeps (
	number INTEGER NOT NULL, 
	sweep_id VARCHAR(32) NOT NULL, 
	request_id VARCHAR(36), 
	grid TEXT NOT NULL, 
	options TEXT NOT NULL, 
	median_stopping TEXT, 
	is_cancelled BOOLEAN NOT NULL, 
	create_time BIGINT NOT NULL, 
	end_time BIGINT, 
	latest_sequence INTEGER NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (sweep_id), 
	UNIQUE (request_id)
);
INSERT INTO "sweeps" VALUES(1,'s',NULL,'{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"axes":[{"field":"blocks","values":[2,4]},{"field":"seed","values":[0,1]}]}','{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',NULL,0,1767225600000000,NULL,11);
INSERT INTO "sweeps" VALUES(2,'d',NULL,'{"spec":{"dataset":"tiny","blocks":2,"block_convolutions":2,"batch_norm":false,"epochs":4,"batch_size":128,"learning_rate":0.01,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"seed":0,"residual":false,"initialization":"default","schedule":"constant","nesterov":false,"augmentation":"none","patience":0,"precision":"float32","diagnostics":false},"axes":[{"field":"batch_norm","values":[false,true]}]}','{"priority": 0, "time_limit": null, "retention": {"policy": "all", "every_nth": 0}}',NULL,0,1767225600000000,1767225600000000,8);
CREATE INDEX jobs_by_sweep ON jobs (sweep_id, number);
CREATE INDEX jobs_in_queue ON jobs (state, priority DESC, number);
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX jobs_by_sweep_state ON jobs (sweep_id, state, number);
CREATE INDEX jobs_by_deadline ON jobs (state, deadline);
CREATE INDEX sweep_events_by_job ON sweep_events (job_number);
CREATE INDEX models_by_number ON jobs (number) WHERE completed_epochs > 0;
CREATE INDEX models_by_dataset ON jobs (dataset, number) WHERE completed_epochs > 0;
CREATE INDEX models_by_accuracy ON jobs (best_test_accuracy, number) WHERE completed_epochs > 0;
CREATE INDEX models_by_variant ON jobs (dataset, blocks, block_convolutions, batch_norm, residual, number) WHERE completed_epochs > 0;
CREATE INDEX best_by_variant ON jobs (dataset, blocks, block_convolutions, batch_norm, residual, best_test_accuracy) WHERE completed_epochs > 0;
CREATE INDEX events_by_kind ON events (job_number, kind, epoch, test_accuracy);
CREATE INDEX sweeps_unfinished ON sweeps (number) WHERE end_time IS NULL;
CREATE TRIGGER count_new_job AFTER INSERT ON jobs BEGIN 
    INSERT INTO job_counts
    SELECT
        sweep_id, NEW.state,
        1, NEW.start_time IS NOT NULL, NEW.cancel_reason IS 'MEDIAN_STOPPED'
    FROM (SELECT '' AS sweep_id UNION ALL SELECT NEW.sweep_id)
    WHERE sweep_id IS NOT NULL
    ON CONFLICT (sweep_id, state) DO UPDATE SET
        jobs = jobs + 1,
        begun = begun + excluded.begun,
        median_stopped = median_stopped + excluded.median_stopped;
 END;
CREATE TRIGGER count_changed_job AFTER UPDATE OF state, start_time, cancel_reason ON jobs
    BEGIN 
    UPDATE job_counts SET
        jobs = jobs - 1,
        begun = begun - (OLD.start_time IS NOT NULL),
        median_stopped = median_stopped - (OLD.cancel_reason IS 'MEDIAN_STOPPED')
    WHERE sweep_id IN ('', OLD.sweep_id) AND state = OLD.state;
    DELETE FROM job_counts
    WHERE sweep_id IN ('', OLD.sweep_id) AND state = OLD.state AND jobs = 0;
 
    INSERT INTO job_counts
    SELECT
        sweep_id, NEW.state,
        1, NEW.start_time IS NOT NULL, NEW.cancel_reason IS 'MEDIAN_STOPPED'
    FROM (SELECT '' AS sweep_id UNION ALL SELECT NEW.sweep_id)
    WHERE sweep_id IS NOT NULL
    ON CONFLICT (sweep_id, state) DO UPDATE SET
        jobs = jobs + 1,
        begun = begun + excluded.begun,
        median_stopped = median_stopped + excluded.median_stopped;
 END;
CREATE TRIGGER count_deleted_job AFTER DELETE ON jobs BEGIN 
    UPDATE job_counts SET
        jobs = jobs - 1,
        begun = begun - (OLD.start_time IS NOT NULL),
        median_stopped = median_stopped - (OLD.cancel_reason IS 'MEDIAN_STOPPED')
    WHERE sweep_id IN ('', OLD.sweep_id) AND state = OLD.state;
    DELETE FROM job_counts
    WHERE sweep_id IN ('', OLD.sweep_id) AND state = OLD.state AND jobs = 0;
 END;
COMMIT;
PRAGMA user_version=5;
