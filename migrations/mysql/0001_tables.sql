-- The tables of the Sequelize adapter, as its sync() creates them.

create table if not exists `batchactions_jobs` (
  `id` VARCHAR(36) NOT NULL,
  `status` VARCHAR(20) NOT NULL,
  `config` JSON NOT NULL,
  `batches` JSON NOT NULL,
  `totalRecords` INTEGER NOT NULL DEFAULT 0,
  `startedAt` BIGINT,
  `completedAt` BIGINT,
  `distributed` TINYINT(1) NOT NULL DEFAULT false,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB;

create table if not exists `batchactions_records` (
  `id` INTEGER auto_increment,
  `jobId` VARCHAR(36) NOT NULL,
  `batchId` VARCHAR(36) NOT NULL,
  `recordIndex` INTEGER NOT NULL,
  `status` VARCHAR(10) NOT NULL,
  `raw` JSON NOT NULL,
  `parsed` JSON NOT NULL,
  `errors` JSON NOT NULL,
  `processingError` TEXT,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB;

create index `batchactions_records_job_id_status` on `batchactions_records` (`jobId`, `status`);
create index `batchactions_records_job_id_batch_id` on `batchactions_records` (`jobId`, `batchId`);
create unique index `batchactions_records_job_id_record_index` on `batchactions_records` (`jobId`, `recordIndex`);

create table if not exists `batchactions_batches` (
  `id` VARCHAR(36) NOT NULL,
  `jobId` VARCHAR(36) NOT NULL,
  `batchIndex` INTEGER NOT NULL,
  `status` VARCHAR(20) NOT NULL DEFAULT 'PENDING',
  `workerId` VARCHAR(128),
  `claimedAt` BIGINT,
  `recordStartIndex` INTEGER NOT NULL DEFAULT 0,
  `recordEndIndex` INTEGER NOT NULL DEFAULT 0,
  `processedCount` INTEGER NOT NULL DEFAULT 0,
  `failedCount` INTEGER NOT NULL DEFAULT 0,
  `version` INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB;

create index `batchactions_batches_job_id_status` on `batchactions_batches` (`jobId`, `status`);
create unique index `batchactions_batches_job_id_batch_index` on `batchactions_batches` (`jobId`, `batchIndex`);
