/**
 * A stand-in for the Sequelize adapter that the store shares tables with: models on Sequelize 6 whose `sync()` makes the tables, and an adapter
 * that treats them as the Sequelize adapter does. It finds and then updates, copies each change of a batch into the job's JSON, and does
 * so in a transaction that locks the batch row first and the job row second.
 */
import { DataTypes, Op, Sequelize, Transaction } from 'sequelize';

/** The three models. Their `sync()` makes the tables that both adapters work on. */
export function defineModels(sequelize) {
  const options = { timestamps: false };
  // Sequelize writes the name of the column into the definition: each needs one of its own.
  const count = () => ({ type: DataTypes.INTEGER, allowNull: false, defaultValue: 0 });
  // MySQL and MariaDB take no default for JSON: Sequelize leaves it out there by itself.
  const Job = sequelize.define(
    'TestJob',
    {
      id: { type: DataTypes.STRING(36), primaryKey: true, allowNull: false },
      status: { type: DataTypes.STRING(20), allowNull: false },
      config: { type: DataTypes.JSON, allowNull: false },
      batches: { type: DataTypes.JSON, allowNull: false, defaultValue: [] },
      totalRecords: count(),
      startedAt: { type: DataTypes.BIGINT, allowNull: true },
      completedAt: { type: DataTypes.BIGINT, allowNull: true },
      distributed: { type: DataTypes.BOOLEAN, allowNull: false, defaultValue: false },
    },
    { ...options, tableName: 'batchactions_jobs' },
  );
  const Record = sequelize.define(
    'TestRecord',
    {
      id: { type: DataTypes.INTEGER, primaryKey: true, autoIncrement: true },
      jobId: { type: DataTypes.STRING(36), allowNull: false },
      batchId: { type: DataTypes.STRING(36), allowNull: false },
      recordIndex: { type: DataTypes.INTEGER, allowNull: false },
      status: { type: DataTypes.STRING(10), allowNull: false },
      raw: { type: DataTypes.JSON, allowNull: false },
      parsed: { type: DataTypes.JSON, allowNull: false },
      errors: { type: DataTypes.JSON, allowNull: false, defaultValue: [] },
      processingError: { type: DataTypes.TEXT, allowNull: true },
    },
    {
      ...options,
      tableName: 'batchactions_records',
      indexes: [{ fields: ['jobId', 'status'] }, { fields: ['jobId', 'batchId'] }, { fields: ['jobId', 'recordIndex'], unique: true }],
    },
  );
  const Batch = sequelize.define(
    'TestBatch',
    {
      id: { type: DataTypes.STRING(36), primaryKey: true, allowNull: false },
      jobId: { type: DataTypes.STRING(36), allowNull: false },
      batchIndex: { type: DataTypes.INTEGER, allowNull: false },
      status: { type: DataTypes.STRING(20), allowNull: false, defaultValue: 'PENDING' },
      workerId: { type: DataTypes.STRING(128), allowNull: true },
      claimedAt: { type: DataTypes.BIGINT, allowNull: true },
      recordStartIndex: count(),
      recordEndIndex: count(),
      processedCount: count(),
      failedCount: count(),
      version: count(),
    },
    {
      ...options,
      tableName: 'batchactions_batches',
      indexes: [{ fields: ['jobId', 'status'] }, { fields: ['jobId', 'batchIndex'], unique: true }],
    },
  );
  return { Job, Record, Batch };
}

/** A Sequelize instance on a test database. */
export function connectSequelize(db, options = {}) {
  const { name, sequelizeOptions: dialectOptions = {} } = db.dialect;
  if (db.url.startsWith('sqlite:')) {
    return new Sequelize({ dialect: 'sqlite', storage: db.url.replace(/^sqlite:(\/\/)?/, ''), logging: false, ...options });
  }
  // The dialect is the URL's, whatever the options say.
  const url = db.url.replace(/^\w+:/, `${name}:`);
  return new Sequelize(url, { logging: false, dialectOptions, ...options });
}

const present = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null && value !== undefined));
const optionalNumber = (value) => (value === null || value === undefined ? undefined : Number(value));
const parsedJson = (value) => (typeof value === 'string' ? JSON.parse(value) : value);

function toRow(jobId, batchId, record) {
  return {
    jobId,
    batchId,
    recordIndex: record.index,
    status: record.status,
    raw: record.raw,
    parsed: record.parsed,
    errors: record.errors ?? [],
    processingError: record.processingError ?? null,
  };
}

function toRecord(row) {
  return present({
    index: row.recordIndex,
    raw: parsedJson(row.raw),
    parsed: parsedJson(row.parsed),
    status: row.status,
    errors: parsedJson(row.errors),
    processingError: row.processingError,
  });
}

/** An adapter in the manner of the one that the store replaces. */
export class IncumbentLikeStore {
  constructor(sequelize) {
    this.sequelize = sequelize;
    Object.assign(this, defineModels(sequelize));
  }

  async initialize() {
    await this.sequelize.sync();
  }

  async close() {
    await this.sequelize.close();
  }

  /** Only the JSON: no row of `batchactions_batches` comes from here. */
  async saveJobState(job) {
    const values = {
      id: job.id,
      status: job.status,
      config: job.config,
      batches: job.batches.map((batch) => ({ ...batch, records: [] })),
      totalRecords: job.totalRecords ?? 0,
      startedAt: job.startedAt ?? null,
      completedAt: job.completedAt ?? null,
      distributed: job.distributed ?? false,
    };
    const row = await this.Job.findByPk(job.id);
    if (row) await row.update(values);
    else await this.Job.create(values);
  }

  /** What users of the adapter did, so that workers find something to claim. */
  async insertBatchRows(job) {
    await this.Batch.bulkCreate(
      job.batches.map((batch) => ({
        id: batch.id,
        jobId: job.id,
        batchIndex: batch.index,
        recordStartIndex: batch.recordStartIndex ?? 0,
        recordEndIndex: batch.recordEndIndex ?? 0,
      })),
    );
  }

  async getJobState(jobId) {
    const row = await this.Job.findByPk(jobId);
    if (!row) return null;
    return present({
      id: row.id,
      config: parsedJson(row.config),
      status: row.status,
      batches: parsedJson(row.batches),
      totalRecords: row.totalRecords,
      startedAt: optionalNumber(row.startedAt),
      completedAt: optionalNumber(row.completedAt),
      distributed: row.distributed ? true : undefined,
    });
  }

  /** The row of a job as Sequelize gives it, and those of its batches. */
  async jobRow(jobId) {
    return (await this.Job.findByPk(jobId)).get();
  }

  async batchRows(jobId) {
    return (await this.Batch.findAll({ where: { jobId }, order: [['batchIndex', 'ASC']] })).map((row) => row.get());
  }

  async recordRow(jobId, recordIndex) {
    return (await this.Record.findOne({ where: { jobId, recordIndex } })).get();
  }

  async saveProcessedRecord(jobId, batchId, record) {
    const row = await this.Record.findOne({ where: { jobId, recordIndex: record.index } });
    if (row) await row.update(toRow(jobId, batchId, record));
    else await this.Record.create(toRow(jobId, batchId, record));
  }

  async saveBatchRecords(jobId, batchId, records) {
    await this.Record.bulkCreate(records.map((record) => toRow(jobId, batchId, record)));
  }

  async getBatchRecords(jobId, batchId) {
    return this.#records({ jobId, batchId });
  }

  async getProcessedRecords(jobId) {
    return this.#records({ jobId, status: 'processed' });
  }

  async getFailedRecords(jobId) {
    return this.#records({ jobId, status: ['failed', 'invalid'] });
  }

  async getPendingRecords(jobId) {
    return this.#records({ jobId, status: ['pending', 'valid'] });
  }

  /** The counts of it. */
  async getProgress(jobId) {
    const job = await this.Job.findByPk(jobId);
    const counts = await this.Record.count({ where: { jobId }, group: ['status'] });
    const of = (...statuses) => counts.filter(({ status }) => statuses.includes(status)).reduce((sum, { count }) => sum + Number(count), 0);
    const [processedRecords, failedRecords] = [of('processed'), of('failed', 'invalid')];
    const pendingRecords = Math.max(0, job.totalRecords - processedRecords - failedRecords);
    return { totalRecords: job.totalRecords, processedRecords, failedRecords, pendingRecords };
  }

  async updateBatchState(jobId, batchId, state) {
    const { status, processedCount, failedCount } = state;
    await this.#transaction(async (transaction) => {
      await this.Batch.findOne({ where: { id: batchId, jobId }, transaction, lock: transaction.LOCK.UPDATE });
      await this.Batch.update({ status, processedCount, failedCount }, { where: { id: batchId, jobId }, transaction });
      await this.#rewriteJson(jobId, transaction, (batch) =>
        batch.id === batchId ? { ...batch, status, processedCount, failedCount } : batch,
      );
    });
  }

  async claimBatch(jobId, workerId) {
    return this.#transaction(async (transaction) => {
      const job = await this.Job.findByPk(jobId, { attributes: ['status'], transaction });
      if (!job) return { claimed: false, reason: 'JOB_NOT_FOUND' };
      if (job.status !== 'PROCESSING') return { claimed: false, reason: 'JOB_NOT_PROCESSING' };
      const row = await this.Batch.findOne({
        where: { jobId, status: 'PENDING' },
        order: [['batchIndex', 'ASC']],
        transaction,
        lock: transaction.LOCK.UPDATE,
        skipLocked: true,
      });
      if (!row) return { claimed: false, reason: 'NO_PENDING_BATCHES' };
      const claimedAt = Date.now();
      await row.update({ status: 'PROCESSING', workerId, claimedAt, version: row.version + 1 }, { transaction });
      await this.#rewriteJson(jobId, transaction, (batch) =>
        batch.id === row.id ? { ...batch, status: 'PROCESSING', workerId, claimedAt } : batch,
      );
      return {
        claimed: true,
        reservation: {
          jobId,
          batchId: row.id,
          batchIndex: row.batchIndex,
          workerId,
          claimedAt,
          recordStartIndex: row.recordStartIndex,
          recordEndIndex: row.recordEndIndex,
        },
      };
    });
  }

  async releaseBatch(jobId, batchId, workerId) {
    await this.#transaction(async (transaction) => {
      const row = await this.Batch.findOne({ where: { id: batchId, jobId, workerId }, transaction, lock: transaction.LOCK.UPDATE });
      if (row) await this.#reopen(jobId, [row], transaction);
    });
  }

  async reclaimStaleBatches(jobId, timeoutMs) {
    return this.#transaction(async (transaction) => {
      const rows = await this.Batch.findAll({
        where: { jobId, status: 'PROCESSING', claimedAt: { [Op.lt]: Date.now() - timeoutMs } },
        order: [['batchIndex', 'ASC']],
        transaction,
        lock: transaction.LOCK.UPDATE,
        skipLocked: true,
      });
      if (rows.length > 0) await this.#reopen(jobId, rows, transaction);
      return rows.length;
    });
  }

  async tryFinalizeJob(jobId) {
    return this.#transaction(async (transaction) => {
      const job = await this.Job.findByPk(jobId, { transaction, lock: transaction.LOCK.UPDATE });
      if (job?.status !== 'PROCESSING') return false;
      const rows = await this.Batch.findAll({ where: { jobId }, attributes: ['status'], transaction });
      if (rows.length === 0 || rows.some(({ status }) => status === 'PENDING' || status === 'PROCESSING')) return false;
      const status = rows.some((row) => row.status === 'FAILED') ? 'FAILED' : 'COMPLETED';
      await job.update({ status, completedAt: Date.now() }, { transaction });
      return true;
    });
  }

  async #records(where) {
    return (await this.Record.findAll({ where, order: [['recordIndex', 'ASC']] })).map(toRecord);
  }

  async #reopen(jobId, rows, transaction) {
    for (const row of rows) {
      await row.update({ status: 'PENDING', workerId: null, claimedAt: null, version: row.version + 1 }, { transaction });
    }
    const reopened = new Set(rows.map(({ id }) => id));
    await this.#rewriteJson(jobId, transaction, (batch) => {
      if (!reopened.has(batch.id)) return batch;
      return { ...batch, status: 'PENDING', workerId: undefined, claimedAt: undefined };
    });
  }

  async #rewriteJson(jobId, transaction, change) {
    const job = await this.Job.findByPk(jobId, { transaction, lock: transaction.LOCK.UPDATE });
    if (job) await job.update({ batches: parsedJson(job.batches).map(change) }, { transaction });
  }

  // A SQLite transaction that begins with a read can't turn into a write while another connection is writing.
  async #transaction(body) {
    const options = this.sequelize.getDialect() === 'sqlite' ? { type: Transaction.TYPES.IMMEDIATE } : {};
    return this.sequelize.transaction(options, body);
  }
}
