//! The desk in a real headless Chromium, as an officer uses it.

use crate::media::{Scene, TICKET, jpeg};
use crate::support::{Spec, TestGateway, at, gateway::PASSWORD, number, proxy::Proxy, sql, until};
use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource, MouseActions, PointerAction},
    key::Key,
};
use intake_standin_wechat::Act;
use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A chromedriver of one's own.
pub struct Driver {
    process: Child,
    url: String,
}

impl Driver {
    pub async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let process = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed by `make test`");
        let url = format!("http://127.0.0.1:{port}");
        let status = format!("{url}/status");
        until("chromedriver answers", async || reqwest::get(&status).await.is_ok()).await;
        Self { process, url }
    }

    pub async fn browser(&self, width: u32, height: u32) -> Client {
        let size = format!("--window-size={width},{height}");
        self.open(serde_json::json!({ "args": [size] })).await
    }

    /// A telephone's browser: so wide, its letters so large (16 is usual).
    pub async fn phone(&self, width: u32, letters: u32) -> Client {
        let metrics = serde_json::json!({ "width": width, "height": 844, "pixelRatio": 1.0 });
        self.open(serde_json::json!({
            "args": [],
            "mobileEmulation": { "deviceMetrics": metrics },
            "prefs": { "webkit.webprefs.default_font_size": letters },
        }))
        .await
    }

    async fn open(&self, mut options: serde_json::Value) -> Client {
        for always in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        {
            options["args"].as_array_mut().unwrap().push(always.into());
        }
        let capabilities = serde_json::json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&self.url)
            .await
            .unwrap()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The browser as well, which outlives its driver when a test fails.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
    }
}

pub async fn appears(browser: &Client, css: &str) -> fantoccini::elements::Element {
    browser
        .wait()
        .at_most(Duration::from_secs(15))
        .for_element(Locator::Css(css))
        .await
        .unwrap_or_else(|error| panic!("{css}: {error}"))
}

/// The words at a place, once it is there; the page may replace it at any moment.
async fn words(browser: &Client, css: &str) -> String {
    appears(browser, css).await;
    let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
    let text = browser.execute(script, vec![css.into()]).await.unwrap();
    text.as_str().unwrap_or_default().to_owned()
}

/// Puts the pointer there and lets it rest.
async fn point_at(browser: &Client, css: &str) {
    let element = appears(browser, css).await;
    let to = PointerAction::MoveToElement { element, duration: None, x: 0.0, y: 0.0 };
    browser.perform_actions(MouseActions::new("mouse".to_owned()).then(to)).await.unwrap();
}

pub async fn log_in(browser: &Client, login: &str) {
    appears(browser, "input[name=login]").await.send_keys(login).await.unwrap();
    let password = appears(browser, "input[name=password]").await;
    password.send_keys(&format!("{PASSWORD}{}", Key::Enter)).await.unwrap();
    appears(browser, "header.top").await;
}

async fn value(browser: &Client, css: &str) -> String {
    let prop = appears(browser, css).await.prop("value").await.unwrap();
    prop.unwrap_or_default()
}

async fn end_sessions(gateway: &TestGateway) {
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "DELETE FROM desk_session").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_outlives_a_lost_session_and_is_shown_to_nobody_else() {
    const PROBLEM: &str = "textarea[name=problem]";
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let form = format!("{}/desk/register", gateway.base);
    let driver = Driver::start().await;
    let browser = driver.browser(1366, 768).await;
    browser.goto(&format!("{}/desk/login", gateway.base)).await.unwrap();
    log_in(&browser, "zhao.min").await;
    browser.goto(&form).await.unwrap();
    appears(&browser, PROBLEM).await.send_keys("失业登记被退回").await.unwrap();
    appears(&browser, "input[name=name]").await.send_keys("李春梅").await.unwrap();

    // The session ends while the form is open; what is sent then is not lost.
    end_sessions(&gateway).await;
    appears(&browser, "form.form button.primary").await.click().await.unwrap();
    appears(&browser, "input[name=password]").await;
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 0);
    log_in(&browser, "zhao.min").await;
    browser.goto(&form).await.unwrap();
    assert_eq!(value(&browser, PROBLEM).await, "失业登记被退回");
    assert_eq!(value(&browser, "input[name=name]").await, "李春梅");

    // Somebody else at the same screen does not see it.
    end_sessions(&gateway).await;
    browser.goto(&form).await.unwrap();
    log_in(&browser, "qian.fang").await;
    browser.goto(&form).await.unwrap();
    assert_eq!(value(&browser, PROBLEM).await, "");
    end_sessions(&gateway).await;
    browser.goto(&form).await.unwrap();
    log_in(&browser, "zhao.min").await;
    browser.goto(&form).await.unwrap();
    assert_eq!(value(&browser, PROBLEM).await, "失业登记被退回");

    // Registered, but the answer is lost on the way; sent again with a word more it makes no second
    // ticket, and the page says so.
    let entry = value(&browser, "input[name=entry]").await;
    appears(&browser, "form.form button.primary").await.click().await.unwrap();
    assert!(words(&browser, ".done").await.contains("已登记"));
    let draft = serde_json::json!({ "entry": entry, "values":
        [true, false, "李春梅", "", "失业登记被退回三次", false] });
    let restore = "sessionStorage.setItem('draft:zhao.min:register', arguments[0])";
    browser.execute(restore, vec![draft.to_string().into()]).await.unwrap();
    browser.goto(&form).await.unwrap();
    assert_eq!(value(&browser, PROBLEM).await, "失业登记被退回三次");
    appears(&browser, "form.form button.primary").await.click().await.unwrap();
    let done = words(&browser, ".done").await;
    assert!(done.contains("之前已登记，内容以第一次为准"), "{done}");
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
    // If it was another matter, it can be sent as one.
    browser.goto(&form).await.unwrap();
    assert_eq!(value(&browser, PROBLEM).await, "失业登记被退回三次");
    appears(&browser, "form.form button.primary").await.click().await.unwrap();
    assert!(words(&browser, ".done").await.contains("已登记。"));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 2);
    browser.goto(&form).await.unwrap();
    assert_eq!(value(&browser, PROBLEM).await, "");

    // A logout forgets what is half written.
    appears(&browser, PROBLEM).await.send_keys("x").await.unwrap();
    appears(&browser, "form[action='/desk/logout'] button").await.click().await.unwrap();
    log_in(&browser, "zhao.min").await;
    browser.goto(&form).await.unwrap();
    assert_eq!(value(&browser, PROBLEM).await, "");
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_lost_its_gateway_says_so_and_comes_back_by_itself() {
    let gateway = Spec::at(at("2026-11-24 09:10"))
        .with("http.answer_timeout_s = 1\ndatabase.acquire_timeout_ms = 10000")
        .start()
        .await;
    let proxy = Proxy::before(gateway.base.trim_start_matches("http://").to_owned()).await;
    let driver = Driver::start().await;
    let browser = driver.browser(1366, 768).await;
    browser.goto(&format!("http://{}/desk/login", proxy.address)).await.unwrap();
    log_in(&browser, "zhao.min").await;
    appears(&browser, "#queue .empty").await;
    let counted = "window.notReloaded = true; window.opened = 0;
        window.EventSource = class extends EventSource {
            constructor(address) { super(address); window.opened += 1; }
        }";
    browser.execute(counted, Vec::new()).await.unwrap();

    // The gateway answers 503 for a while: a browser's own stream would give up for good.
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "BEGIN; LOCK TABLE desk_session").await;
    proxy.cut();
    let line = words(&browser, "#link:not([hidden])").await;
    assert!(
        line.starts_with("连接中断，正在重试；显示的是 ") && line.ends_with(" 的内容"),
        "{line}"
    );
    proxy.mend();
    until("the page opened a stream of its own accord", async || {
        let opened = browser.execute("return window.opened", Vec::new()).await.unwrap();
        opened.as_u64() >= Some(1)
    })
    .await;
    sql(&mut db, "ROLLBACK").await;
    appears(&browser, "#link[hidden]").await;
    gateway.wechat("oA", "路灯坏了", "1").await.reply();
    appears(&browser, "tr[data-ticket='BCS-2026-000001']").await;
    gateway.wechat("oB", "社保卡补办", "2").await.reply();
    appears(&browser, "tr[data-ticket='BCS-2026-000002']").await;
    let stays = browser.execute("return window.notReloaded", Vec::new()).await.unwrap();
    assert_eq!(stays, true);
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_logs_in_sees_a_message_arrive_registers_and_claims() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let driver = Driver::start().await;
    let browser = driver.browser(1366, 768).await;
    browser.goto(&format!("{}/desk", gateway.base)).await.unwrap();

    // Logs in; the empty queue is kind.
    appears(&browser, "input[name=login]").await.send_keys("zhao.min").await.unwrap();
    let password = appears(&browser, "input[name=password]").await;
    password.send_keys(&format!("{PASSWORD}{}", Key::Enter)).await.unwrap();
    let empty = words(&browser, ".empty").await;
    assert!(empty.contains("现在没有待办"), "{empty}");
    browser.execute("window.notReloaded = true", Vec::new()).await.unwrap();

    // A citizen writes now, and it appears without a reload.
    gateway.wechat("oA", "城东路路灯坏了三天没人修", "1").await.reply();
    let text = words(&browser, "tr[data-ticket='BCS-2026-000001']").await;
    assert!(text.contains("路灯") && text.contains("微信") && text.contains("待认领"), "{text}");
    let stays = browser.execute("return window.notReloaded", Vec::new()).await.unwrap();
    assert_eq!(stays, true);
    let views = words(&browser, "#views a[aria-current]").await;
    assert!(views.contains('1'), "the count is true: {views}");

    // Under a pointer nothing moves, however long it has rested: a line says what came.
    point_at(&browser, "#queue").await;
    let an_hour_later =
        "const real = performance.now.bind(performance); performance.now = () => real() + 3600000";
    browser.execute(an_hour_later, Vec::new()).await.unwrap();
    let top = "return document.querySelector('tr[data-ticket]').getBoundingClientRect().top";
    let before = browser.execute(top, Vec::new()).await.unwrap();
    gateway.wechat("oB", "社保卡补办", "2").await.reply();
    assert!(words(&browser, "#news:not([hidden])").await.contains("1 条新反映"));
    let shown = browser.find_all(Locator::Css("tr[data-ticket]")).await.unwrap();
    assert_eq!(shown.len(), 1, "nothing moved");
    assert_eq!(browser.execute(top, Vec::new()).await.unwrap(), before, "nothing moved");
    appears(&browser, "#news:not([hidden])").await.click().await.unwrap();
    appears(&browser, "tr[data-ticket='BCS-2026-000002']").await;

    // Registers by keyboard; a half-written form survives a reload.
    let body = appears(&browser, "body").await;
    body.send_keys("r").await.unwrap();
    appears(&browser, "textarea[name=problem]").await.send_keys("失业登记").await.unwrap();
    browser.refresh().await.unwrap();
    let problem = appears(&browser, "textarea[name=problem]").await;
    assert_eq!(problem.prop("value").await.unwrap().as_deref(), Some("失业登记"));
    problem.send_keys("被退回三次").await.unwrap();
    appears(&browser, "input[name=name]").await.send_keys("李春梅").await.unwrap();
    appears(&browser, "form.form button.primary").await.click().await.unwrap();
    let done = words(&browser, ".done").await;
    assert!(done.contains("已登记"), "{done}");
    let heading = words(&browser, "h1").await;
    assert_eq!(heading, "BCS-2026-000003");

    // Claims the citizen's message with a key.
    let ticket = format!("{}/desk/tickets/BCS-2026-000001", gateway.base);
    browser.goto(&ticket).await.unwrap();
    appears(&browser, "button[data-key=c]").await;
    appears(&browser, "body").await.send_keys("c").await.unwrap();
    let done = words(&browser, ".done").await;
    assert!(done.contains("已认领"), "{done}");
    let page = words(&browser, "main").await;
    assert!(page.contains("赵敏 负责办理"), "{page}");
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_written_by_keyboard_outlives_a_reload_and_is_gone_once_it_was_given() {
    const OPINION: &str = "form[action$=resolve] [name=opinion]";
    const ANSWER: &str = "form[action$=resolve] [name=answer]";
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    gateway.wechat("oA", "社保卡办不了", "1").await.reply();
    let ticket = format!("{}/desk/tickets/BCS-2026-000001", gateway.base);
    let driver = Driver::start().await;
    let browser = driver.browser(1366, 768).await;
    browser.goto(&format!("{}/desk/login", gateway.base)).await.unwrap();
    log_in(&browser, "zhao.min").await;
    browser.goto(&ticket).await.unwrap();
    appears(&browser, "body").await.send_keys("c").await.unwrap();
    assert!(words(&browser, ".done").await.contains("已认领"));

    // A key opens the form and stands in its first field; what a result does not need is not shown.
    appears(&browser, "body").await.send_keys("d").await.unwrap();
    appears(&browser, "details[open] [name=outcome]:focus").await;
    let basis = appears(&browser, "form[action$=resolve] [name=basis]").await;
    assert!(!basis.is_displayed().await.unwrap());
    let refused = "form[action$=resolve] option[value=refused]";
    appears(&browser, refused).await.click().await.unwrap();
    assert!(basis.is_displayed().await.unwrap());
    appears(&browser, "form[action$=resolve] option[value=solved]").await.click().await.unwrap();
    // The opinion is proposed as the answer, until that has words of its own.
    appears(&browser, OPINION).await.send_keys("已补办").await.unwrap();
    assert_eq!(value(&browser, ANSWER).await, "已补办");
    appears(&browser, ANSWER).await.send_keys("，请来取").await.unwrap();
    appears(&browser, OPINION).await.send_keys("社保卡").await.unwrap();
    assert_eq!(value(&browser, ANSWER).await, "已补办，请来取");
    browser.refresh().await.unwrap();
    assert_eq!(value(&browser, OPINION).await, "已补办社保卡");
    assert_eq!(value(&browser, "form[action$=resolve] [name=outcome]").await, "solved");
    let form = appears(&browser, ANSWER).await;
    assert!(form.is_displayed().await.unwrap(), "a form that is half written is open");
    appears(&browser, "form[action$=resolve] button").await.click().await.unwrap();
    // The page before had a message of its own.
    let answered = async || words(&browser, ".done").await.contains("已答复群众");
    until("the page says that it was answered", answered).await;
    let drafts =
        "return Object.keys(sessionStorage).filter((key) => key.startsWith('draft:')).length";
    assert_eq!(browser.execute(drafts, Vec::new()).await.unwrap(), 0);
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_scrolls_sideways_on_a_phone_nor_on_an_old_screen() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let long = "很长的反映".repeat(60) + &"x".repeat(120);
    gateway.wechat("oA", &long, "1").await.reply();
    gateway.app.relay.step().await.unwrap();
    let driver = Driver::start().await;
    for (width, height) in [(1366, 768), (500, 844)] {
        let browser = driver.browser(width, height).await;
        browser.goto(&format!("{}/desk/login", gateway.base)).await.unwrap();
        appears(&browser, "input[name=login]").await.send_keys("zhao.min").await.unwrap();
        let password = appears(&browser, "input[name=password]").await;
        password.send_keys(&format!("{PASSWORD}{}", Key::Enter)).await.unwrap();
        appears(&browser, "#queue").await;
        for path in [
            "/desk?view=all",
            "/desk/tickets/BCS-2026-000001",
            "/desk/register",
            "/desk/notices",
            "/desk/quarantine",
        ] {
            browser.goto(&format!("{}{path}", gateway.base)).await.unwrap();
            appears(&browser, "#main").await;
            let wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            let wider = browser.execute(wider, Vec::new()).await.unwrap();
            assert_eq!(wider, 0, "{path} at {width}");
        }
        browser.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn photos_are_seen_and_voices_are_heard_on_the_ticket() {
    let scene = Scene::set().await;
    scene.sends_and_it_comes(Act::Photo(Some(jpeg(1200, 900).into()))).await;
    scene.sends_and_it_comes(Act::Voice).await;
    let gateway = &scene.gateway;
    let driver = Driver::start().await;
    let browser = driver.browser(1366, 768).await;
    browser.goto(&format!("{}/desk/login", gateway.base)).await.unwrap();
    log_in(&browser, "zhao.min").await;
    browser.goto(&format!("{}{TICKET}", gateway.base)).await.unwrap();
    let holds = async |what: &str, script: &str| {
        let script = format!("return Boolean({script})");
        until(what, async || browser.execute(&script, Vec::new()).await.unwrap() == true).await;
    };
    holds("the photo is drawn", "document.querySelector('.attachment img').naturalWidth === 320")
        .await;
    // A browser plays for a hand only.
    appears(&browser, "h1").await.click().await.unwrap();
    let play = "const a = document.querySelector('audio'); a.muted = true; a.play(); return true";
    browser.execute(play, Vec::new()).await.unwrap();
    holds("it lasts a second", "document.querySelector('audio').duration === 1").await;
    holds("it is played to its end", "document.querySelector('audio').ended").await;
    let listened = "SELECT count(*) FROM media_opened WHERE variant = 'play'";
    assert_eq!(number(&gateway.pool, listened).await, 1);
    let preview = appears(&browser, ".attachment a").await.attr("href").await.unwrap().unwrap();
    browser.goto(&format!("{}{preview}", gateway.base)).await.unwrap();
    holds("the photo fills the page", "document.querySelector('img').naturalWidth === 1200").await;
    browser.close().await.unwrap();
}
