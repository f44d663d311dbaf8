// The platform's side by another hand: npm's wechat-crypto signs, encrypts and decrypts. Reads and
// writes as wechat.py does.
const { createRequire } = require('node:module');
const installed = createRequire(`${process.argv[2]}/package.json`);
const WechatCrypto = installed('wechat-crypto');

const field = (xml, name) =>
  (new RegExp(`<${name}>(?:<!\\[CDATA\\[)?([\\s\\S]*?)(?:\\]\\]>)?</${name}>`).exec(xml) || [])[1];

async function main() {
  let input = '';
  for await (const chunk of process.stdin) input += chunk;
  const { url, token, key, app_id, now, messages } = JSON.parse(input);
  const crypto = new WechatCrypto(token, key, app_id);
  const answers = [];
  for (const [n, xml] of messages.entries()) {
    const [timestamp, nonce] = [String(now), `n${n}`];
    const encrypted = crypto.encrypt(xml);
    const query = new URLSearchParams({
      timestamp,
      nonce,
      encrypt_type: 'aes',
      msg_signature: crypto.getSignature(timestamp, nonce, encrypted),
    });
    const body = `<xml><ToUserName>x</ToUserName><Encrypt><![CDATA[${encrypted}]]></Encrypt></xml>`;
    const answer = await fetch(`${url}?${query}`, { method: 'POST', body });
    const text = await answer.text();
    const encrypt = field(text, 'Encrypt');
    if (!encrypt) {
      answers.push({ status: answer.status, text });
      continue;
    }
    const expected = crypto.getSignature(field(text, 'TimeStamp'), field(text, 'Nonce'), encrypt);
    const { message, id } = crypto.decrypt(encrypt);
    const genuine = expected === field(text, 'MsgSignature') && id === app_id;
    const reply = Object.fromEntries(
      ['ToUserName', 'FromUserName', 'MsgType', 'Content'].map((name) => [name, field(message, name)]),
    );
    answers.push({ status: answer.status, genuine, reply });
  }
  process.stdout.write(JSON.stringify({ answers }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
