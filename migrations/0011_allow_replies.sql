-- What WeChat's platform still allows an account to send to a citizen who has written or tapped
-- (wechat.md 6.1): five messages in 48 hours, three in a minute. Counted here, because a restart
-- must not forget it and replicas must count together. A row without a limit in the future is of no
-- use and is removed.

CREATE TABLE wechat_allowance (
    office_id     integer NOT NULL,
    app_id        text NOT NULL,
    openid        text NOT NULL,
    message_until timestamptz,
    message_left  smallint CHECK (message_left BETWEEN 0 AND 5),
    tap_until     timestamptz,
    tap_left      smallint CHECK (tap_left BETWEEN 0 AND 3),
    PRIMARY KEY (office_id, app_id, openid),
    CHECK ((message_until IS NULL) = (message_left IS NULL)),
    CHECK ((tap_until IS NULL) = (tap_left IS NULL))
) WITH (fillfactor = 85);
