// MQTT.js: node mqttjs.js URL (the authority of a TLS listener in the file CA_FILE)
'use strict'
const mqtt = require('mqtt')
const assert = require('assert')
const fs = require('fs')

const url = process.argv[2]
const ca = process.env.CA_FILE && fs.readFileSync(process.env.CA_FILE)
let failed = 0

async function test (name, body) {
  try {
    await Promise.race([body(), new Promise((resolve, reject) => setTimeout(() => reject(new Error('20 s are over')), 20000).unref())])
    console.log('ok ' + name)
  } catch (error) {
    failed = 1
    console.error(error)
    console.log('not ok ' + name + ': ' + String(error.message).replace(/\n/g, ' '))
  }
}

// The messages of a client, to be waited for.
function inbox (client) {
  const got = []
  const waiting = []
  const serve = () => { while (waiting.length && got.length >= waiting[0].count) waiting.shift().resolve(got.splice(0)) }
  client.on('message', (topic, payload, packet) => { got.push({ topic, payload, packet }); serve() })
  return count => new Promise(resolve => { waiting.push({ count, resolve }); serve() })
}

async function main () {
  for (const protocolVersion of [4, 5]) {
    const base = 'mqttjs/' + protocolVersion
    const connect = options => mqtt.connectAsync(url, { ca, protocolVersion, ...options })
    await test(protocolVersion + ': every QoS, in order', async () => {
      const client = await connect({})
      const take = inbox(client)
      await client.subscribeAsync(base + '/+', { qos: 2 })
      await Promise.all(Array.from({ length: 60 }, (_, n) => client.publishAsync(`${base}/${n % 3}`, String(n), { qos: n % 3 })))
      const got = await take(60)
      for (const qos of [0, 1, 2]) {
        const texts = got.filter(m => m.topic.endsWith('/' + qos)).map(m => Number(m.payload))
        assert.deepStrictEqual(texts, Array.from({ length: 20 }, (_, n) => n * 3 + qos))
      }
      await client.endAsync()
    })
    await test(protocolVersion + ': 2,000 at once, QoS 2', async () => {
      const client = await connect({})
      const take = inbox(client)
      await client.subscribeAsync(base + '/many', { qos: 2 })
      await Promise.all(Array.from({ length: 2000 }, (_, n) => client.publishAsync(base + '/many', String(n), { qos: 2 })))
      const got = await take(2000)
      assert.deepStrictEqual(got.map(m => Number(m.payload)), Array.from({ length: 2000 }, (_, n) => n))
      await client.endAsync()
    })
    await test(protocolVersion + ': a will, retained', async () => {
      const watcher = await connect({})
      const take = inbox(watcher)
      await watcher.subscribeAsync(base + '/will', { qos: 1 })
      const doomed = await connect({ reconnectPeriod: 0, will: { topic: base + '/will', payload: 'gone', qos: 1, retain: true } })
      doomed.stream.destroy()
      const [message] = await take(1)
      assert.strictEqual(String(message.payload), 'gone')
      await watcher.unsubscribeAsync(base + '/will')
      await watcher.subscribeAsync(base + '/will', { qos: 1 })
      const [kept] = await take(1)
      assert.ok(kept.packet.retain)
      await watcher.publishAsync(base + '/will', '', { qos: 1, retain: true })
      await watcher.endAsync()
    })
    await test(protocolVersion + ': a session waits', async () => {
      const options = { clientId: 'mqttjs-' + protocolVersion, clean: false, ...(protocolVersion === 5 ? { properties: { sessionExpiryInterval: 60 } } : {}) }
      const client = await connect(options)
      await client.subscribeAsync(base + '/session', { qos: 1 })
      await client.endAsync()
      const other = await connect({})
      for (let n = 0; n < 50; n++) await other.publishAsync(base + '/session', String(n), { qos: 1 })
      await other.endAsync()
      const back = mqtt.connect(url, { ca, protocolVersion, ...options })
      const got = await inbox(back)(50)
      assert.deepStrictEqual(got.map(m => Number(m.payload)), Array.from({ length: 50 }, (_, n) => n))
      await back.endAsync()
    })
  }
  await test('5: properties', async () => {
    const client = await mqtt.connectAsync(url, { ca, protocolVersion: 5, properties: { topicAliasMaximum: 10 } })
    const take = inbox(client)
    await client.subscribeAsync('mqttjs/p', { qos: 1, properties: { subscriptionIdentifier: 7 } })
    const properties = { contentType: 'text/plain', responseTopic: 'answers', correlationData: Buffer.from([0, 255]), userProperties: { a: ['1', '2'], b: '3' } }
    await client.publishAsync('mqttjs/p', 'x', { qos: 1, properties })
    const found = (await take(1))[0].packet.properties
    assert.strictEqual(found.contentType, 'text/plain')
    assert.strictEqual(found.responseTopic, 'answers')
    assert.deepStrictEqual([...found.correlationData], [0, 255])
    assert.deepStrictEqual({ ...found.userProperties }, { a: ['1', '2'], b: '3' })
    assert.strictEqual(found.subscriptionIdentifier, 7)
    await client.endAsync()
  })
  process.exit(failed)
}

main()
