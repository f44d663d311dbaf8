//! The Redis side: which ids are due when, and who has them.
//!
//! Four keys with one hash tag (so that they live on one node of a cluster), their layout's version
//! in the name: `due` (ids by due time, ms), `lease` (claimed ids by the end of their lease), `seq`
//! (for tokens), `epoch` (written last by a rebuild; without it nothing is claimed). Redis' own
//! time is the only clock here.

use super::TimerKey;
use redis::{
    Client, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig, PubSub},
};
use std::time::Duration;

/// Ids per script call; Lua's `unpack` fails at 8,000.
pub const CALL_LIMIT: usize = 1000;

const SCHEDULE: &str = r"
-- KEYS: due. ARGV: channel, then due ms and member, pairwise.
local before = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local args = {}
for i = 2, #ARGV do args[i - 1] = ARGV[i] end
redis.call('ZADD', KEYS[1], unpack(args))
local after = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #before == 0 or tonumber(after[2]) < tonumber(before[2]) then
    redis.call('PUBLISH', ARGV[1], after[2])
end
return redis.status_reply('OK')
";

const CLAIM: &str = r"
-- KEYS: due, lease, seq, epoch. ARGV: epoch, limit, lease ms.
if redis.call('GET', KEYS[4]) ~= ARGV[1] then return {'stale'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = now + ARGV[3]
-- What was claimed and never acknowledged goes back, with the due time that it had.
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)
for _, entry in ipairs(ended) do
    local due, member = string.match(entry, '^[^|]*|([^|]*)|(.*)$')
    redis.call('ZADD', KEYS[1], due, member)
end
if #ended > 0 then redis.call('ZREM', KEYS[2], unpack(ended)) end
local items = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local token = ''
if #items > 0 then
    token = ARGV[1] .. '.' .. redis.call('INCR', KEYS[3])
    local leases, members = {}, {}
    for i = 1, #items, 2 do
        members[#members + 1] = items[i]
        leases[#leases + 1] = until_ms
        leases[#leases + 1] = token .. '|' .. items[i + 1] .. '|' .. items[i]
    end
    redis.call('ZREM', KEYS[1], unpack(members))
    redis.call('ZADD', KEYS[2], unpack(leases))
end
-- The next thing to do: what is due next, or the end of a lease whose owner may be gone.
local next_due = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
local lease_end = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
if lease_end and (not next_due or tonumber(lease_end) < tonumber(next_due)) then
    next_due = lease_end
end
return {'ok', tostring(now), next_due or '', token, items}
";

const ACK: &str = r"
-- KEYS: lease. ARGV: entries (token|due|member). A lease that another one holds now stays.
return redis.call('ZREM', KEYS[1], unpack(ARGV))
";

/// Why the index could not be used. Nothing depends on it but lateness.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Redis did not answer, or not in time.
    #[error("Redis is not available")]
    Unavailable(#[source] Option<RedisError>),
    /// It answered with something else than the scripts return.
    #[error("Redis answered unexpectedly")]
    Unexpected,
}

/// What a claim brought.
#[derive(Debug)]
pub enum Claim {
    /// The index is not the one that was last filled: rebuild.
    Stale,
    /// These are due and leased.
    Due {
        /// The leased ids.
        leased: Vec<Leased>,
        /// Redis' time, in ms since 1970.
        now_ms: i64,
        /// When the next one is due or a lease ends, in ms since 1970.
        next_ms: Option<i64>,
    },
}

/// A claimed id, with the entry that acknowledges it.
#[derive(Debug)]
pub struct Leased {
    /// Which timer; `None` for an id that is none.
    pub key: Option<TimerKey>,
    entry: String,
}

/// The schedule in Redis. Cheap to clone.
#[derive(Clone)]
pub struct Index {
    client: Client,
    connection: ConnectionManager,
    keys: Keys,
    scripts: std::sync::Arc<[Script; 3]>,
}

#[derive(Clone, Debug)]
struct Keys {
    due: String,
    lease: String,
    seq: String,
    epoch: String,
    wake: String,
}

/// A call takes this long at most: far more than Redis needs, far less than a person notices.
const CALL_WITHIN: Duration = Duration::from_millis(1000);

impl Index {
    /// The index at `url` under `prefix`. Does not connect yet, so that the gateway starts without
    /// Redis.
    ///
    /// # Errors
    /// When the URL cannot be understood.
    pub fn new(url: &str, prefix: &str) -> Result<Self, RedisError> {
        let client = Client::open(url)?;
        // Without these a call to a Redis that is down blocks for 9 s (stack.md).
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(200))
            .set_connection_timeout(Some(Duration::from_millis(500)))
            .set_response_timeout(Some(CALL_WITHIN));
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        let key = |name: &str| format!("{{{prefix}:s0}}:v1:{name}");
        let keys = Keys {
            due: key("due"),
            lease: key("lease"),
            seq: key("seq"),
            epoch: key("epoch"),
            wake: key("wake"),
        };
        let scripts = [Script::new(SCHEDULE), Script::new(CLAIM), Script::new(ACK)].into();
        Ok(Self { client, connection, keys, scripts })
    }

    async fn call<T>(
        &self,
        work: impl Future<Output = Result<T, RedisError>> + Send,
    ) -> Result<T, IndexError> {
        match tokio::time::timeout(CALL_WITHIN, work).await {
            Ok(result) => result.map_err(|error| IndexError::Unavailable(Some(error))),
            Err(_) => Err(IndexError::Unavailable(None)),
        }
    }

    /// Enters timers. Wakes all replicas when the earliest moved.
    ///
    /// # Errors
    /// [`IndexError`]; harmless, the sweep finds what is missing.
    pub async fn schedule(&self, timers: &[TimerKey]) -> Result<(), IndexError> {
        self.enter(timers.iter().map(|timer| (timer.due_at.timestamp_millis(), *timer))).await
    }

    /// Enters timers to be claimed at these times by Redis' clock, in ms since 1970.
    ///
    /// # Errors
    /// [`IndexError`]; harmless, the sweep finds what is missing.
    pub async fn enter(
        &self,
        timers: impl Iterator<Item = (i64, TimerKey)>,
    ) -> Result<(), IndexError> {
        let timers: Vec<_> = timers.collect();
        for chunk in timers.chunks(CALL_LIMIT) {
            let mut call = self.scripts[0].key(&self.keys.due);
            call.arg(&self.keys.wake);
            for (at_ms, timer) in chunk {
                call.arg(at_ms).arg(timer.member());
            }
            let mut connection = self.connection.clone();
            let () = self.call(call.invoke_async(&mut connection)).await?;
        }
        Ok(())
    }

    /// Takes out timers that no longer count.
    ///
    /// # Errors
    /// [`IndexError`]; harmless, a stale id changes nothing when it is claimed.
    pub async fn remove(&self, timers: &[TimerKey]) -> Result<(), IndexError> {
        for chunk in timers.chunks(CALL_LIMIT) {
            let mut call = redis::cmd("ZREM");
            call.arg(&self.keys.due);
            for timer in chunk {
                call.arg(timer.member());
            }
            let mut connection = self.connection.clone();
            let () = self.call(call.query_async(&mut connection)).await?;
        }
        Ok(())
    }

    /// Claims what is due, for `lease`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn claim(
        &self,
        epoch: i64,
        limit: usize,
        lease: Duration,
    ) -> Result<Claim, IndexError> {
        let mut call = self.scripts[1].key(&self.keys.due);
        call.key(&self.keys.lease).key(&self.keys.seq).key(&self.keys.epoch);
        call.arg(epoch).arg(limit.min(CALL_LIMIT)).arg(lease.as_millis() as u64);
        let mut connection = self.connection.clone();
        let answer: Vec<redis::Value> = self.call(call.invoke_async(&mut connection)).await?;
        read_claim(answer).ok_or(IndexError::Unexpected)
    }

    /// Gives up the leases of what has been carried out; returns how many were still held.
    ///
    /// # Errors
    /// [`IndexError`]; harmless, the lease ends by itself and the repeat changes nothing.
    pub async fn acknowledge(&self, leased: &[Leased]) -> Result<usize, IndexError> {
        let mut held = 0;
        for chunk in leased.chunks(CALL_LIMIT) {
            let mut call = self.scripts[2].key(&self.keys.lease);
            for one in chunk {
                call.arg(&one.entry);
            }
            let mut connection = self.connection.clone();
            held += self.call(call.invoke_async::<usize>(&mut connection)).await?;
        }
        Ok(held)
    }

    /// Empties the index; until [`Self::finish`] nothing can be claimed.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn clear(&self) -> Result<(), IndexError> {
        let mut call = redis::cmd("UNLINK");
        call.arg(&self.keys.epoch).arg(&self.keys.due).arg(&self.keys.lease);
        let mut connection = self.connection.clone();
        self.call(call.query_async(&mut connection)).await
    }

    /// Marks the index as filled, for this epoch, and wakes all replicas.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn finish(&self, epoch: i64) -> Result<(), IndexError> {
        let mut pipe = redis::pipe();
        pipe.set(&self.keys.epoch, epoch).ignore().publish(&self.keys.wake, "").ignore();
        let mut connection = self.connection.clone();
        self.call(pipe.query_async(&mut connection)).await
    }

    /// The epoch that the index claims to be of.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn epoch(&self) -> Result<Option<i64>, IndexError> {
        let mut call = redis::cmd("GET");
        call.arg(&self.keys.epoch);
        let mut connection = self.connection.clone();
        self.call(call.query_async(&mut connection)).await
    }

    /// How many ids are waiting, and how many are leased.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn counts(&self) -> Result<(usize, usize), IndexError> {
        let mut pipe = redis::pipe();
        pipe.zcard(&self.keys.due).zcard(&self.keys.lease);
        let mut connection = self.connection.clone();
        self.call(pipe.query_async(&mut connection)).await
    }

    /// Redis' time, in ms since 1970.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn time_ms(&self) -> Result<i64, IndexError> {
        let mut connection = self.connection.clone();
        let (s, us): (i64, i64) =
            self.call(redis::cmd("TIME").query_async(&mut connection)).await?;
        Ok(s * 1000 + us / 1000)
    }

    /// Redis' memory policy: anything but `noeviction` may drop ids silently.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn memory_policy(&self) -> Result<String, IndexError> {
        let mut call = redis::cmd("CONFIG");
        call.arg("GET").arg("maxmemory-policy");
        let mut connection = self.connection.clone();
        let pairs: Vec<String> = self.call(call.query_async(&mut connection)).await?;
        pairs.into_iter().nth(1).ok_or(IndexError::Unexpected)
    }

    /// Listens for moves of the earliest due time. The connection may drop, and messages get lost:
    /// a hint, nothing more.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn listen(&self) -> Result<PubSub, IndexError> {
        self.call(async {
            let mut listening = self.client.get_async_pubsub().await?;
            listening.subscribe(&self.keys.wake).await?;
            Ok(listening)
        })
        .await
    }
}

fn read_claim(answer: Vec<redis::Value>) -> Option<Claim> {
    let mut parts = answer.into_iter();
    let text = |value: redis::Value| redis::from_redis_value::<String>(value).ok();
    match text(parts.next()?)?.as_str() {
        "stale" => return Some(Claim::Stale),
        "ok" => {}
        _ => return None,
    }
    let now_ms = text(parts.next()?)?.parse().ok()?;
    let next_ms = text(parts.next()?)?.parse().ok();
    let token = text(parts.next()?)?;
    let items: Vec<String> = redis::from_redis_value(parts.next()?).ok()?;
    let leased = items
        .chunks_exact(2)
        .map(|pair| Leased {
            key: pair[1].parse().ok().and_then(|due_ms| TimerKey::parse(&pair[0], due_ms)),
            entry: format!("{token}|{}|{}", pair[1], pair[0]),
        })
        .collect();
    Some(Claim::Due { leased, now_ms, next_ms })
}
