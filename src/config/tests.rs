use super::*;

const NEEDED: &str = "database_url = 'postgres://x'\nredis_url = 'redis://x'\n";

fn refusal(text: &str) -> String {
    Config::from_toml(&format!("{NEEDED}{text}")).map(|_| ()).expect_err(text).to_string()
}

#[test]
fn the_defaults_are_complete_but_for_the_two_servers() {
    assert!(Config::from_toml(NEEDED).is_ok());
    let missing = Config::from_toml("").unwrap_err().to_string();
    assert!(missing.contains("DATABASE_URL"), "{missing}");
}

#[test]
fn a_wrong_setting_is_refused_by_its_key() {
    let wechat = |api: &str| {
        format!(
            "[[wechat]]\noffice = 'a'\nid = 'main'\napp_id = 'wx1'\noriginal_id = 'gh_1'\ntoken = 'abcdef'\nmode = 'plain'\n{api}"
        )
    };
    let told = "[[notify]]\noffice = 'a'\nname = 'b'\nkind = 'webhook'\nurl = 'https://x.test'\nsecret = '0123456789abcdef0123456789abcdef'\n";
    let secret = "secret = '0123456789abcdef0123456789abcdef'";
    let template = |template: &str| {
        let api = format!("[wechat.api]\n{secret}\n[[wechat.api.templates]]\nid = 'T1'\n");
        wechat(&format!("{api}{template}"))
    };
    const SMS_OF_A: &str =
        "[[sms]]\noffice = 'a'\nurl = 'https://a.test'\nsecret = '0123456789abcdef'";
    for (text, key) in [
        ("[http]\nlisten = 'nowhere'", "http.listen"),
        ("[http]\nlissten = '127.0.0.1:1'", "http.lissten is not known"),
        ("[htttp]\nlisten = '127.0.0.1:1'", "htttp is not known"),
        ("[intake]\nwriters = 0", "intake.writers must be 1 to 64"),
        ("[schedule]\nbatch = 8000", "schedule.batch must be 1 to 1000"),
        ("[intake]\nqueue = 'many'", "intake.queue must be a whole number"),
        ("[intake]\nqueue = -1", "intake.queue must be a whole number, not negative"),
        ("[intake]\nanswer_within_ms = 4000", "intake.answer_within_ms must be"),
        ("[http]\nanswer_timeout_s = 0", "http.answer_timeout_s"),
        ("[http]\nheader_timeout_s = 18446744073709551615", "the settings is no TOML in line 4"),
        ("[http]\nheader_timeout_s = 9223372036854775807", "http.header_timeout_s"),
        ("[http]\nconnections_per_address = 0", "http.connections_per_address"),
        ("[http]\ntrusted_proxies = ['127.0.0.1', 'proxy']", "http.trusted_proxies[1]"),
        ("[database]\nconnections = 0", "database.connections"),
        ("[schedule]\nlease_s = 0", "schedule.lease_s"),
        ("[schedule]\nlook_every_s = 0", "schedule.look_every_s"),
        ("[relay]\nfirst_retry_s = 7200", "relay.longest_retry_s"),
        ("[media]\nfolder = ''", "media.folder is missing"),
        ("[media]\nlimit_mb = 0", "media.limit_mb"),
        ("[media]\nffmpeg = 'ffmpeg'", "media.ffmpeg must be the whole path"),
        ("[transcribe]\ncommand = ['asr', '-m', 'zh']", "transcribe.command[0]"),
        ("[transcribe]\ncommand = '/bin/asr'", "transcribe.command must be"),
        ("[transcribe]\ntimeout_s = 0", "transcribe.timeout_s"),
        ("[media]\ns3_bucket = 'a'", "media.s3_key_id is missing"),
        ("[media]\ns3_bucket = 'a'\ns3_endpoint = 's3'", "media.s3_endpoint"),
        ("[spool]\nlimit_mb = 0", "spool.limit_mb"),
        ("[desk]\nfailures = 0", "desk.failures"),
        ("[desk]\nlock_min = -5", "desk.lock_min"),
        ("[desk]\nsession_h = 100000000", "desk.session_h"),
        ("[desk]\nsession_idle_min = 0", "desk.session_idle_min"),
        ("[desk]\nlock_min_file = '/nonexistent'", "desk.lock_min_file"),
        ("[log]\nfilter = 'inof'", "log.filter"),
        ("[log]\nfilter = 'info,sqlx=loud'", "log.filter"),
        ("[[wechat]]\nid = 'a'", "wechat[0].office is missing"),
        ("[[wechat]]\noffice = 1", "wechat[0].office must be a string"),
        ("wechat = 'a'", "wechat must be a list"),
        ("[[notify]]\noffice = 'a'\nname = 'b'\nkind = 'fax'", "notify[0].kind must be one of"),
        (format!("{told}{told}").as_str(), "notify[1].name: the office has a b already"),
        (format!("{0}\n{0}", wechat("")).as_str(), "wechat[1].id: main occurs twice"),
        (
            "[[notify]]\noffice = 'a'\nname = 'b'\nkind = 'smtp'\nhost = 'h'\nfrom = 'a@b'\nport = 'x'",
            "notify[0].port",
        ),
        (
            "[[notify]]\noffice = 'a'\nname = 'b'\nkind = 'wecom'\nurl_file = '/nonexistent'",
            "notify[0].url_file",
        ),
        (
            "[[hotline]]\noffice = 'a'\nid = 'p'\nkeys = []\nreplay_window_s = 'x'",
            "hotline[0].replay_window_s",
        ),
        ("[[hotline]]\noffice = 'a'\nid = 'p'\nkeys = [{ id = 'k' }]", "secret is missing"),
        (&wechat("api = { secret = 'short' }"), "wechat[0].api.secret is not an AppSecret"),
        (&wechat(&format!("api = {{ {secret}, base_url = 'http://api.test' }}")), "api.base_url"),
        (&wechat(&format!("api = {{ {secret}, open_url = 'https://a.test/?b' }}")), "api.open_url"),
        (&wechat(&format!("api = {{ {secret}, answer_timeout_s = 0 }}")), "api.answer_timeout_s"),
        (&wechat("api = { base_url = 'https://api.test' }"), "secret is missing"),
        (
            &template("by = 'letter'\nkinds = ['said']\nfields = { thing1 = 'says' }"),
            "wechat[0].api.templates[0].by must be",
        ),
        (
            &template("by = 'notice'\nkinds = ['told']\nfields = { thing1 = 'says' }"),
            "wechat[0].api.templates[0].kinds[0]",
        ),
        (
            &template("by = 'notice'\nkinds = ['said']\nfields = { thing1 = 'words' }"),
            "wechat[0].api.templates[0].fields.thing1",
        ),
        (
            &template("by = 'notice'\nkinds = ['said']\nfields = { time1 = 'says' }"),
            "api.templates.fields names a field that cannot hold it",
        ),
        (
            &template(
                "by = 'template'\nlong_term = true\nkinds = ['said']\nfields = { thing1 = 'says' }",
            ),
            "api.templates.long_term",
        ),
        (
            "[[sms]]\noffice = 'a'\nurl = 'http://a.test'\nsecret = '0123456789abcdef'",
            "sms[0].url must begin with https://",
        ),
        ("[[sms]]\noffice = 'a'\nurl = 'https://a.test'\nsecret = 'short'", "sms[0].secret"),
        (
            "[[sms]]\noffice = 'a'\nurl = 'https://a.test'\nsecret_file = '/nonexistent'",
            "sms[0].secret_file",
        ),
        (
            "[[sms]]\noffice = 'a'\nurl = 'https://a.test'\nsecret = '0123456789abcdef'\ntimeout_s = 0",
            "sms[0].timeout_s",
        ),
        (&format!("{0}\n{0}", SMS_OF_A), "sms[1].office has a gateway already"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(key), "{text}: {refusal}");
    }
}

#[test]
fn a_refusal_never_shows_what_may_be_a_secret() {
    const SECRET: &str = "4815162342";
    let account = "[[wechat]]\noffice = 'a'\nid = 'main'\napp_id = 'wx1'\noriginal_id = 'gh_1'\n";
    for (text, key) in [
        (format!("{account}token = {SECRET}"), "wechat[0].token must be a string"),
        (
            format!("{account}token = 'abcdef'\nencoding_aes_key = ['{SECRET}']"),
            "wechat[0].encoding_aes_key",
        ),
        (format!("{account}token = 'bad token {SECRET}'"), "wechat[0].token"),
        (format!("{account}token = \"{SECRET}"), "line 8"),
        (
            format!(
                "[[hotline]]\noffice = 'a'\nid = 'p'\nkeys = [{{ id = 'k', secret = {SECRET} }}]"
            ),
            "hotline[0].keys[0].secret must be a string",
        ),
        (format!("[[hotline]]\noffice = 'a'\nid = 'p'\nkeys = '{SECRET}'"), "hotline[0].keys"),
        (
            format!(
                "[[notify]]\noffice = 'a'\nname = 'b'\nkind = 'webhook'\nurl = 'https://x.test'\nsecret = {SECRET}"
            ),
            "notify[0].secret must be a string",
        ),
        (
            format!("[[notify]]\noffice = 'a'\nname = 'b'\nkind = 'wecom'\nurl = '{SECRET}'"),
            "notify[0].url",
        ),
        (format!("[http]\nconnections = '{SECRET}'"), "http.connections"),
    ] {
        let refusal = refusal(&text);
        assert!(refusal.contains(key), "{text}: {refusal}");
        assert!(!refusal.contains(SECRET), "{refusal}");
    }
}

#[test]
fn the_higher_layer_wins_whichever_way_it_gives_a_secret() {
    let path = std::env::temp_dir().join(format!("intake-layer-{}", std::process::id()));
    std::fs::write(&path, "postgres://from-file\n").unwrap();
    let layer = |text: &str| parse("a test", text).unwrap();
    let file = layer(&format!("database_url_file = '{}'\nredis_url = 'redis://x'", path.display()));
    let value = layer("database_url = 'postgres://from-value'");
    let url = |layers: Vec<Map<String, Value>>| {
        let base = [layer(DEFAULTS), layer("redis_url = 'redis://x'")];
        let config = Config::from_layers(base.into_iter().chain(layers).collect());
        config.map(|config| config.database_url.expose_secret().to_owned())
    };
    assert_eq!(url(vec![file.clone(), value.clone()]).unwrap(), "postgres://from-value");
    assert_eq!(url(vec![value, file.clone()]).unwrap(), "postgres://from-file");
    let mut both = file;
    both.insert("database_url".to_owned(), "postgres://x".into());
    assert!(url(vec![both]).unwrap_err().to_string().contains("both given"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_secret_can_stand_in_a_file() {
    let path = std::env::temp_dir().join(format!("intake-secret-{}", std::process::id()));
    std::fs::write(&path, "postgres://from-file\n").unwrap();
    let text = format!("database_url_file = '{}'\nredis_url = 'redis://x'", path.display());
    let config = Config::from_toml(&text).unwrap();
    assert_eq!(config.database_url.expose_secret(), "postgres://from-file");
    assert!(!format!("{config:?}").contains("from-file"));
    std::fs::remove_file(&path).unwrap();
}
