-- The tables of the Sequelize adapter, as its sync() creates them.

create table if not exists batchactions_jobs (
  "id" varchar(36) not null,
  "status" varchar(20) not null,
  "config" json not null,
  "batches" json not null default '[]',
  "totalRecords" integer not null default 0,
  "startedAt" bigint,
  "completedAt" bigint,
  "distributed" boolean not null default false,
  primary key ("id")
);

create table if not exists batchactions_records (
  "id" serial,
  "jobId" varchar(36) not null,
  "batchId" varchar(36) not null,
  "recordIndex" integer not null,
  "status" varchar(10) not null,
  "raw" json not null,
  "parsed" json not null,
  "errors" json not null default '[]',
  "processingError" text,
  primary key ("id")
);

create index if not exists batchactions_records_job_id_status on batchactions_records ("jobId", "status");
create index if not exists batchactions_records_job_id_batch_id on batchactions_records ("jobId", "batchId");
create unique index if not exists batchactions_records_job_id_record_index on batchactions_records ("jobId", "recordIndex");

create table if not exists batchactions_batches (
  "id" varchar(36) not null,
  "jobId" varchar(36) not null,
  "batchIndex" integer not null,
  "status" varchar(20) not null default 'PENDING',
  "workerId" varchar(128),
  "claimedAt" bigint,
  "recordStartIndex" integer not null default 0,
  "recordEndIndex" integer not null default 0,
  "processedCount" integer not null default 0,
  "failedCount" integer not null default 0,
  "version" integer not null default 0,
  primary key ("id")
);

create index if not exists batchactions_batches_job_id_status on batchactions_batches ("jobId", "status");
create unique index if not exists batchactions_batches_job_id_batch_index on batchactions_batches ("jobId", "batchIndex");
