// Delayed jobs as one would write them with BullMQ and pg: `add` enters them, all for one instant;
// `work` carries them out until it is told to end. Each job's effect is the gateway's own: the timer
// fired once, an event with its link of the chain, the ticket changed, a row of the outbox; one
// statement and transaction.

import { Queue, Worker } from "bullmq";
import pg from "pg";

const NAME = "timers";
const CONCURRENCY = 100;
const CONNECTIONS = 16;
const CALL = 1000;

const EFFECT = `
WITH fired AS (
    UPDATE timer SET state = 1
    WHERE office_id = 1 AND ticket = $1 AND kind = $2 AND gen = $3 AND state = 0
      AND due_at <= now() + interval '1 second'
    RETURNING ticket, gen
), changed AS (
    UPDATE ticket SET events = events + 1,
        chain = sha256(chain || convert_to(events + 1 || 'follow_up_due' || $4, 'UTF8'))
    FROM fired WHERE office_id = 1 AND ticket.ticket = fired.ticket
    RETURNING ticket.ticket, events, chain
), happened AS (
    INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
    SELECT 1, ticket, events, now(), 'gateway', 'follow_up_due', $4::json, chain FROM changed
), told AS (
    INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
    SELECT 1, 'follow_up', ticket, false, '{"level": 1, "accountable": null}', now(), now()
    FROM changed
)
SELECT count(*) FROM fired`;

const url = new URL(process.env.REDIS_URL);
const connection = {
  host: url.hostname,
  port: Number(url.port),
  password: decodeURIComponent(url.password),
  maxRetriesPerRequest: null,
};

async function add(count, dueMs) {
  const queue = new Queue(NAME, { connection });
  const began = performance.now();
  const now = Date.now();
  for (let first = 1; first <= count; first += CALL) {
    const jobs = [];
    for (let n = first; n <= Math.min(count, first + CALL - 1); n++) {
      const data = { ticket: 2_026_000_000_000 + n, kind: 1, gen: 1 };
      const opts = {
        jobId: `1-${data.ticket}-1-1`,
        timestamp: now,
        delay: dueMs - now,
        attempts: 5,
        removeOnComplete: true,
      };
      jobs.push({ name: "timer", data, opts });
    }
    await queue.addBulk(jobs);
  }
  console.log(JSON.stringify({ add_s: (performance.now() - began) / 1000 }));
  await queue.close();
}

async function work() {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CONNECTIONS });
  const effect = async ({ data: { ticket, kind, gen } }) => {
    const values = [ticket, kind, gen, JSON.stringify({ generation: gen })];
    await pool.query({ name: "effect", text: EFFECT, values });
  };
  const worker = new Worker(NAME, effect, { connection, concurrency: CONCURRENCY });
  worker.on("failed", (_, error) => console.error(error.message));
  process.on("SIGTERM", async () => {
    await worker.close();
    await pool.end();
    process.exit(0);
  });
  await worker.waitUntilReady();
  console.log("ready");
}

const [what, ...args] = process.argv.slice(2);
await (what === "add" ? add(...args.map(Number)) : work());
