// Node-RED without a browser: a flow of MQTT in, function, MQTT out, MQTT.js at both ends. node node-red.js HOST PORT
'use strict'
const http = require('http')
const fs = require('fs')
const path = require('path')
const RED = require('node-red')
const mqtt = require('mqtt')

const [host, port] = [process.argv[2], Number(process.argv[3])]
const userDir = fs.mkdtempSync(path.join(process.env.TMPDIR, 'node-red-'))
let failed = 0

// One broker node and one chain for each version.
function flow (protocolVersion) {
  const at = name => `${name}${protocolVersion}`
  const base = `nodered/${protocolVersion}`
  return [
    { id: at('tab'), type: 'tab', label: at('flow') },
    { id: at('broker'), type: 'mqtt-broker', broker: host, port: String(port), protocolVersion: String(protocolVersion), keepalive: '60', cleansession: true, autoConnect: true, birthTopic: `${base}/birth`, birthPayload: 'up', birthQos: '1', birthRetain: 'true', willTopic: `${base}/birth`, willPayload: 'down', willQos: '1', willRetain: 'true', closeTopic: `${base}/birth`, closePayload: 'closed', closeQos: '1', closeRetain: 'true' },
    { id: at('in'), type: 'mqtt in', z: at('tab'), topic: `${base}/celsius/+`, qos: '2', datatype: 'json', broker: at('broker'), wires: [[at('function')]] },
    { id: at('function'), type: 'function', z: at('tab'), func: `msg.payload = { fahrenheit: msg.payload.value * 9 / 5 + 32 }; msg.topic = msg.topic.replace('celsius', 'fahrenheit'); return msg`, outputs: 1, wires: [[at('out')]] },
    { id: at('out'), type: 'mqtt out', z: at('tab'), topic: '', qos: '2', retain: '', broker: at('broker'), wires: [] }
  ]
}

function within (seconds, what, promise) {
  return Promise.race([promise, new Promise((resolve, reject) => setTimeout(() => reject(new Error(`${what}: not within ${seconds} s`)), seconds * 1000).unref())])
}

async function test (name, body) {
  try {
    await body()
    console.log('ok ' + name)
  } catch (error) {
    failed = 1
    console.error(error)
    console.log('not ok ' + name + ': ' + String(error.message))
  }
}

function expect (client, count, select) {
  return new Promise(resolve => {
    const got = []
    client.on('message', (topic, payload) => {
      if (select(topic, String(payload))) got.push([topic, String(payload)])
      if (got.length === count) resolve(got)
    })
  })
}

async function main () {
  const server = http.createServer()
  RED.init(server, { userDir, httpAdminRoot: false, httpNodeRoot: false, flowFile: 'flows.json', logging: { console: { level: 'warn' } }, telemetry: { enabled: false } })
  fs.writeFileSync(path.join(userDir, 'flows.json'), JSON.stringify([...flow(4), ...flow(5)]))
  await RED.start()
  for (const version of [4, 5]) {
    const base = `nodered/${version}`
    const client = await mqtt.connectAsync(`mqtt://${host}:${port}`, { protocolVersion: 5 })
    await test(`version ${version}: the flow says that it is up, retained`, async () => {
      const up = expect(client, 1, (topic, payload) => topic === `${base}/birth` && payload === 'up')
      await client.subscribeAsync(`${base}/#`, { qos: 2 })
      await within(30, 'up', up)
    })
    await test(`version ${version}: 200 readings through the flow, in order`, async () => {
      const answers = expect(client, 200, topic => topic.startsWith(`${base}/fahrenheit/`))
      for (let n = 0; n < 200; n++) client.publish(`${base}/celsius/${n % 4}`, JSON.stringify({ value: n }), { qos: 2 })
      const got = await within(30, 'the answers', answers)
      for (let sensor = 0; sensor < 4; sensor++) {
        const values = got.filter(([topic]) => topic.endsWith('/' + sensor)).map(([, payload]) => JSON.parse(payload).fahrenheit)
        const expected = Array.from({ length: 50 }, (_, n) => (n * 4 + sensor) * 9 / 5 + 32)
        if (JSON.stringify(values) !== JSON.stringify(expected)) throw new Error(`sensor ${sensor}: ${values}`)
      }
    })
    await client.endAsync()
  }
  const client = await mqtt.connectAsync(`mqtt://${host}:${port}`, { protocolVersion: 5 })
  await test('a flow that is stopped says so', async () => {
    const closed = expect(client, 2, (topic, payload) => topic.endsWith('/birth') && payload === 'closed')
    await client.subscribeAsync('nodered/+/birth', { qos: 1 })
    await RED.stop()
    await within(30, 'closed', closed)
  })
  process.exit(failed)
}

main().catch(error => {
  console.error(error)
  console.log('not ok it starts: ' + error.message)
  process.exit(1)
})
