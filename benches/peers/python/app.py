"""The intake as one would write it with wechatpy, FastAPI and asyncpg.

It verifies, decrypts and parses the callback with wechatpy, writes the same rows into the same
tables in one statement and transaction, and answers encrypted with the ticket's number. The number
is the register's next one, without gap; with PEER_NUMBERS=sequence it comes from a sequence, which
is faster and leaves gaps. Left out, all in its favour: the calendar (dates are a day ahead), messages
that join an open ticket, names and telephones in the words, urgent words, quarantine, and Redis.
"""

import hashlib
import json
import os
import time
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, Request, Response
from wechatpy import parse_message
from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import InvalidAppIdException, InvalidSignatureException
from wechatpy.replies import TextReply

SOURCE = "wechat-main"
POOL = int(os.environ["PEER_POOL"])
TIMERS = [int(kind) for kind in os.environ["PEER_TIMERS"].split(",")]

NUMBER, WHERE_THERE = {
    # What is there already is refused by its key: the number that it would have taken is given back.
    "register": (
        """UPDATE register SET last = last + 1 WHERE office_id = 1 AND year = 2026
        RETURNING 2026000000000 + last AS ticket""",
        "",
    ),
    # What is there already inserts nothing, and leaves a gap.
    "sequence": (
        "SELECT 2026000000000 + nextval('numbers') AS ticket",
        "ON CONFLICT DO NOTHING",
    ),
}[os.environ["PEER_NUMBERS"]]

INTAKE = f"""
WITH n AS MATERIALIZED (
    {NUMBER}
), i AS (
    INSERT INTO inbound (office_id, source, source_id, digest, received_at, ticket, seq,
        appended, due_at, provisional)
    SELECT 1, $1, $2, $3, now(), ticket, 1, false, now() + interval '1 day', false FROM n
    {WHERE_THERE}
    RETURNING ticket
), t AS (
    INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, thread, registered_at,
        accepted_at, due_at, provisional, calendar_version, events, chain)
    SELECT 1, ticket, 'wechat', 'registered', 1, $5, $4, now(), now(), now() + interval '1 day',
        false, 1, 1, sha256(convert_to(ticket || $6, 'UTF8'))
    FROM i
), e AS (
    INSERT INTO event (office_id, ticket, seq, at, actor, kind, data, hash)
    SELECT 1, ticket, 1, now(), 'citizen', 'registered', $6::json,
        sha256(convert_to(ticket || $6, 'UTF8'))
    FROM i
), m AS (
    INSERT INTO message (office_id, ticket, seq, occurred_at, received_at, text, raw, sent_order,
        words_at)
    SELECT 1, ticket, 1, to_timestamp($7), now(), $8, $9, $11, $12 FROM i
), k AS (
    INSERT INTO timer (office_id, ticket, kind, gen, state, due_at)
    SELECT 1, ticket, kind, 1, 0, now() + interval '1 day' FROM i, unnest($10::smallint[]) AS k(kind)
), o AS (
    INSERT INTO outbox (office_id, kind, ticket, urgent, created_at, not_before)
    SELECT 1, 'registered', ticket, false, now(), now() FROM i
)
SELECT ticket FROM i
"""
KNOWN = "SELECT ticket FROM inbound WHERE office_id = 1 AND source = $1 AND source_id = $2"

crypto = WeChatCrypto(os.environ["PEER_TOKEN"], os.environ["PEER_KEY"], os.environ["PEER_APP_ID"])


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/ready")
async def ready():
    return Response()


@app.post("/channels/wechat/main")
async def callback(request: Request) -> Response:
    query = request.query_params
    try:
        raw = crypto.decrypt_message(
            await request.body(), query["msg_signature"], query["timestamp"], query["nonce"]
        )
    except (InvalidSignatureException, InvalidAppIdException, KeyError):
        return Response(status_code=403)
    message = parse_message(raw)
    original = raw.encode()
    digest = hashlib.sha256(original)
    # The words stand in the row once, as in the gateway's.
    words = message.content.encode()
    words_at = original.find(words)
    rest = original[:words_at] + original[words_at + len(words) :]
    source_id = f"{message.id:020}/{message.source}"
    happened = {
        "channel": "wechat",
        "digest": digest.hexdigest(),
        "accepted_at": message.create_time.isoformat(),
        "follow_up_at": None,
        "provisional": False,
        "urgent": False,
    }
    async with request.app.state.pool.acquire() as db:
        try:
            ticket = await db.fetchval(
                INTAKE,
                SOURCE,
                source_id,
                digest.digest(),
                f"{SOURCE}-{message.source}",
                message.content[:48],
                json.dumps(happened, ensure_ascii=False),
                message.create_time.timestamp(),
                message.content,
                rest,
                TIMERS,
                message.id,
                words_at,
            )
        except asyncpg.UniqueViolationError:
            ticket = None
        if ticket is None:
            ticket = await db.fetchval(KNOWN, SOURCE, source_id)
    number = f"BCS-{ticket // 1_000_000_000}-{ticket % 1_000_000_000:06}"
    reply = TextReply(content=f"您反映的问题已登记，编号 {number}，请留存备查。", message=message)
    now = str(int(time.time()))
    answer = crypto.encrypt_message(reply.render(), query["nonce"], now)
    return Response(answer, media_type="application/xml")
