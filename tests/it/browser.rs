//! The desk in a real headless Chromium, as an officer uses it.

use crate::support::{Spec, at, gateway::PASSWORD, until};
use fantoccini::{Client, ClientBuilder, Locator, key::Key};
use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A chromedriver of one's own.
struct Driver {
    process: Child,
    url: String,
}

impl Driver {
    async fn start() -> Self {
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

    async fn browser(&self, width: u32, height: u32) -> Client {
        let options = serde_json::json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     format!("--window-size={width},{height}")],
        });
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

async fn appears(browser: &Client, css: &str) -> fantoccini::elements::Element {
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

    // Under a pointer that was just moved nothing moves: a line says what came.
    browser
        .execute(
            "document.querySelector('#queue').dispatchEvent(new PointerEvent('pointermove'))",
            Vec::new(),
        )
        .await
        .unwrap();
    gateway.wechat("oB", "社保卡补办", "2").await.reply();
    assert!(words(&browser, "#news:not([hidden])").await.contains("1 条新反映"));
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
