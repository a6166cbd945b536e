-- The tables of the Sequelize adapter, as its sync() creates them.

create table if not exists `batchactions_jobs` (
  `id` VARCHAR(36) NOT NULL PRIMARY KEY,
  `status` VARCHAR(20) NOT NULL,
  `config` JSON NOT NULL,
  `batches` JSON NOT NULL DEFAULT '[]',
  `totalRecords` INTEGER NOT NULL DEFAULT 0,
  `startedAt` BIGINT,
  `completedAt` BIGINT,
  `distributed` TINYINT(1) NOT NULL DEFAULT 0
);

create table if not exists `batchactions_records` (
  `id` INTEGER PRIMARY KEY AUTOINCREMENT,
  `jobId` VARCHAR(36) NOT NULL,
  `batchId` VARCHAR(36) NOT NULL,
  `recordIndex` INTEGER NOT NULL,
  `status` VARCHAR(10) NOT NULL,
  `raw` JSON NOT NULL,
  `parsed` JSON NOT NULL,
  `errors` JSON NOT NULL DEFAULT '[]',
  `processingError` TEXT
);

create index if not exists `batchactions_records_job_id_status` on `batchactions_records` (`jobId`, `status`);
create index if not exists `batchactions_records_job_id_batch_id` on `batchactions_records` (`jobId`, `batchId`);
create unique index if not exists `batchactions_records_job_id_record_index` on `batchactions_records` (`jobId`, `recordIndex`);

create table if not exists `batchactions_batches` (
  `id` VARCHAR(36) NOT NULL PRIMARY KEY,
  `jobId` VARCHAR(36) NOT NULL,
  `batchIndex` INTEGER NOT NULL,
  `status` VARCHAR(20) NOT NULL DEFAULT 'PENDING',
  `workerId` VARCHAR(128),
  `claimedAt` BIGINT,
  `recordStartIndex` INTEGER NOT NULL DEFAULT 0,
  `recordEndIndex` INTEGER NOT NULL DEFAULT 0,
  `processedCount` INTEGER NOT NULL DEFAULT 0,
  `failedCount` INTEGER NOT NULL DEFAULT 0,
  `version` INTEGER NOT NULL DEFAULT 0
);

create index if not exists `batchactions_batches_job_id_status` on `batchactions_batches` (`jobId`, `status`);
create unique index if not exists `batchactions_batches_job_id_batch_index` on `batchactions_batches` (`jobId`, `batchIndex`);
