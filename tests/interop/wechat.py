"""The platform's side by others' hands: wechatpy signs and encrypts what is sent to the gateway,
WeRoBot, another implementation, checks and decrypts what the gateway answers.

Reads on standard input {"url", "token", "key", "app_id", "now", "messages": [xml, ...]} and writes
for each message the status and, where there is one, the reply's fields.
"""

import hashlib
import json
import sys

import requests
import xmltodict
from werobot.crypto import MessageCrypt
from wechatpy.crypto import WeChatCrypto


def post(session, case, number, xml):
    timestamp, nonce = str(case["now"]), f"nonce{number}"
    body = WeChatCrypto(case["token"], case["key"], case["app_id"]).encrypt_message(
        xml, nonce, timestamp
    )
    envelope = xmltodict.parse(body)["xml"]
    query = {
        "timestamp": timestamp,
        "nonce": nonce,
        "openid": "oInterop",
        "encrypt_type": "aes",
        "msg_signature": envelope["MsgSignature"],
        "signature": signature(case["token"], timestamp, nonce),
    }
    answer = session.post(case["url"], params=query, data=body.encode(), timeout=30)
    if not answer.content.startswith(b"<xml>"):
        return {"status": answer.status_code, "text": answer.text}
    reply = xmltodict.parse(answer.content)["xml"]
    plain = MessageCrypt(case["token"], case["key"], case["app_id"]).decrypt_message(
        reply["TimeStamp"], reply["Nonce"], reply["MsgSignature"], reply["Encrypt"]
    )
    return {"status": answer.status_code, "reply": dict(xmltodict.parse(plain)["xml"])}


def signature(*parts):
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()


def main():
    case = json.load(sys.stdin)
    session = requests.Session()
    session.trust_env = False
    query = {
        "timestamp": str(case["now"]),
        "nonce": "1",
        "echostr": "4375120948345356249",
        "signature": signature(case["token"], str(case["now"]), "1"),
    }
    address = session.get(case["url"], params=query, timeout=30).text
    answers = [post(session, case, n, xml) for n, xml in enumerate(case["messages"])]
    json.dump({"address": address, "answers": answers}, sys.stdout, ensure_ascii=False)


main()
