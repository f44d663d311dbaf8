//! WeChat's platform as the gateway uses it: the access token is shared by all replicas through
//! Redis, what citizens may be sent is counted in PostgreSQL. Neither is on the path of an answer.

use crate::{
    domain::id::OfficeId,
    store::{self, StoreError},
};
use chrono::{DateTime, Utc};
use intake_wechat::{
    Account,
    platform::{
        Act, Allowance, AllowanceStore, Change, Openid, Platform, StoreFuture, TemplateSettings,
        Token, TokenStore, Unavailable,
    },
};
use redis::{
    Client, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};

/// An account of an office that can send, as the gateway works with it.
pub struct Sending {
    /// Whose.
    pub office: OfficeId,
    /// `wechat:main`: what its submissions and what it hears call it.
    pub source: String,
    /// AppID: what is counted of its citizens is kept under it.
    pub app_id: String,
    /// Which template tells what.
    pub templates: Vec<TemplateSettings>,
    /// The API.
    pub platform: Platform,
}

/// The accounts that can send.
#[derive(Default)]
pub struct Accounts(Vec<Sending>);

impl Accounts {
    /// These.
    #[must_use]
    pub fn new(accounts: Vec<Sending>) -> Self {
        Self(accounts)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Sending> {
        self.0.iter()
    }

    /// The one with this name, if it can send.
    #[must_use]
    pub fn get(&self, office: OfficeId, source: &str) -> Option<&Sending> {
        self.0.iter().find(|one| one.office == office && one.source == source)
    }

    /// Whose citizen speaks in a thread, `wechat:main:openid`, and who that is.
    #[must_use]
    pub fn of_thread<'a>(
        &self,
        office: OfficeId,
        thread: Option<&'a str>,
    ) -> Option<(&Sending, &'a str)> {
        let (source, citizen) = thread?.rsplit_once(':')?;
        Some((self.get(office, source)?, citizen)).filter(|(_, citizen)| !citizen.is_empty())
    }
}

/// The API of an account that has settings for it; `None` for one that only receives.
///
/// # Errors
/// The key that is wrong and what is wrong with it.
pub fn platform(
    account: &Account,
    office: OfficeId,
    pool: PgPool,
    tokens: Arc<RedisTokens>,
) -> Result<Option<Platform>, (&'static str, &'static str)> {
    let Some(api) = &account.api else { return Ok(None) };
    let allowances = Arc::new(PgAllowances { pool, office });
    Platform::new(&account.app_id, api, tokens, allowances).map(Some)
}

/// A call takes this long at most; then the token is fetched without Redis.
const CALL_WITHIN: Duration = Duration::from_millis(500);
/// An allowance is one row.
const CHANGE_WITHIN: Duration = Duration::from_secs(3);

const REMOVE_IF_SAME: &str = r"
-- KEYS: a token or a lock. ARGV: what it must be.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// Access tokens in Redis: `{prefix:wechat:AppID}:v1:token` and `…:lock`, each with its end.
#[derive(Clone)]
pub struct RedisTokens {
    connection: ConnectionManager,
    prefix: String,
    remove_if_same: Arc<Script>,
}

impl RedisTokens {
    /// The tokens at `url` under `prefix`. Does not connect yet.
    ///
    /// # Errors
    /// When the URL cannot be understood.
    pub fn new(url: &str, prefix: &str) -> Result<Self, RedisError> {
        // As the schedule's: else a Redis that is down blocks a call for seconds.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(200))
            .set_connection_timeout(Some(CALL_WITHIN))
            .set_response_timeout(Some(CALL_WITHIN));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        let remove_if_same = Arc::new(Script::new(REMOVE_IF_SAME));
        Ok(Self { connection, prefix: prefix.to_owned(), remove_if_same })
    }

    fn key(&self, app_id: &str, name: &str) -> String {
        format!("{{{}:wechat:{app_id}}}:v1:{name}", self.prefix)
    }

    async fn call<T>(
        work: impl Future<Output = Result<T, RedisError>> + Send,
    ) -> Result<T, Unavailable> {
        match tokio::time::timeout(CALL_WITHIN, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }

    async fn remove(&self, key: String, value: &str) -> Result<(), Unavailable> {
        let mut connection = self.connection.clone();
        let mut call = self.remove_if_same.key(key);
        call.arg(value);
        Self::call(call.invoke_async::<()>(&mut connection)).await
    }
}

impl TokenStore for RedisTokens {
    fn get<'a>(&'a self, app_id: &'a str) -> StoreFuture<'a, Option<Token>> {
        Box::pin(async move {
            let mut connection = self.connection.clone();
            let mut get = redis::cmd("GET");
            get.arg(self.key(app_id, "token"));
            let found: Option<String> = Self::call(get.query_async(&mut connection)).await?;
            Ok(found.map(|token| Token::new(token.into())))
        })
    }

    fn put<'a>(&'a self, app_id: &'a str, token: &'a Token, ttl: Duration) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut connection = self.connection.clone();
            let mut set = redis::cmd("SET");
            set.arg(self.key(app_id, "token")).arg(token.expose()).arg("PX").arg(millis(ttl));
            Self::call(set.query_async(&mut connection)).await
        })
    }

    fn expire<'a>(&'a self, app_id: &'a str, token: &'a Token) -> StoreFuture<'a, ()> {
        Box::pin(self.remove(self.key(app_id, "token"), token.expose()))
    }

    fn lock<'a>(&'a self, app_id: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut connection = self.connection.clone();
            let mut set = redis::cmd("SET");
            set.arg(self.key(app_id, "lock")).arg(owner).arg("NX").arg("PX").arg(millis(ttl));
            let set: Option<String> = Self::call(set.query_async(&mut connection)).await?;
            Ok(set.is_some())
        })
    }

    fn unlock<'a>(&'a self, app_id: &'a str, owner: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.remove(self.key(app_id, "lock"), owner))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// What an office's citizens may be sent, in PostgreSQL.
pub struct PgAllowances {
    /// The gateway's connections.
    pub pool: PgPool,
    /// Whose citizens.
    pub office: OfficeId,
}

impl AllowanceStore for PgAllowances {
    fn change<'a>(
        &'a self,
        app_id: &'a str,
        citizen: &'a Openid,
        change: Change,
        now: DateTime<Utc>,
    ) -> StoreFuture<'a, (Allowance, Option<Act>)> {
        Box::pin(async move {
            let done = store::within(CHANGE_WITHIN, async {
                let mut transaction = self.pool.begin().await?;
                let done = store::allowance::change(
                    &mut transaction,
                    self.office,
                    app_id,
                    citizen,
                    change,
                    now,
                )
                .await?;
                transaction.commit().await?;
                Ok::<_, StoreError>(done)
            });
            done.await.map_err(|error| {
                tracing::warn!(error = %crate::telemetry::causes(&error), "what may be sent on WeChat could not be counted");
                Unavailable
            })
        })
    }
}
