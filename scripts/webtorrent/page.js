// A page with the published WebTorrent bundle. It fetches what to do from the server that it came from, does it, shows
// how far it got, and tells the server: received files, what the tracker said, and anything that goes wrong.

const sockets = []

// What the bundle says to trackers and hears from them, counted, since its interface does not tell.
class CountedWebSocket extends WebSocket {
  constructor (...given) {
    super(...given)
    const count = { url: this.url, state: 'connecting', sent: {}, received: {} }
    sockets.push(count)
    this.count = count
    this.addEventListener('open', () => this.becomes('open'))
    this.addEventListener('close', ({ code, reason }) => {
      this.becomes(`closed ${code} ${reason}`.trim())
      // The client waits 10 seconds before it connects again, and up to five minutes more, by chance.
      Math.random = () => 0
    })
    this.addEventListener('message', ({ data }) => add(count.received, data))
  }

  becomes (state) {
    this.count.state = state
    report('/tracker', state)
  }

  send (data) {
    add(this.count.sent, data)
    super.send(data)
  }
}
window.WebSocket = CountedWebSocket

function add (counts, data) {
  const kind = kindOf(typeof data === 'string' ? data : new TextDecoder().decode(data))
  counts[kind] = (counts[kind] ?? 0) + 1
}

function kindOf (text) {
  try {
    const message = JSON.parse(text)
    const part = ['failure reason', 'answer', 'offer', 'event'].find(key => key in message)
    const offers = message.offers?.length ? ` with ${message.offers.length} offers` : ''
    return (part === 'event' ? `${message.action} ${message.event}` : part ?? message.action) + offers
  } catch {
    return 'not JSON'
  }
}

const report = (path, body) => fetch(path, { method: 'PUT', body })
const hex = buffer => Array.from(new Uint8Array(buffer), byte => byte.toString(16).padStart(2, '0')).join('')
const sha256 = async buffer => hex(await crypto.subtle.digest('SHA-256', buffer))
const bytes = async path => new Uint8Array(await (await fetch(path)).arrayBuffer())

function fault (error) {
  console.error(error)
  report('/fault', `${error?.stack ?? error}`)
}
window.addEventListener('error', event => fault(event.error ?? event.message))
window.addEventListener('unhandledrejection', event => fault(event.reason))

const shown = []

async function start () {
  const job = await (await fetch('/job')).json()
  document.getElementById('title').textContent = job.title
  document.getElementById('browser').textContent = navigator.userAgent
  const { default: WebTorrent } = await import('/webtorrent.min.js')
  const client = new WebTorrent({ dht: false, lsd: false, utPex: false, tracker: { rtcConfig: { iceServers: [] } } })
  client.on('error', fault)
  for (const given of job.torrents) {
    const state = { name: given.name, result: '', good: null, message: '' }
    shown.push(state)
    state.torrent = given.seed ? await seed(client, given, state) : await leech(client, given, state)
    state.torrent.on('error', fault)
    state.torrent.on('warning', error => {
      state.message = error.message
      report(`/message/${given.name}`, error.message)
    })
  }
}

async function seed (client, given, state) {
  const content = await bytes(`/data/${given.name}`)
  state.result = await sha256(content)
  const torrent = client.seed(new File([content], given.name), {
    name: given.name,
    pieceLength: given.pieceLength,
    private: true,
    announceList: [[given.announce]]
  })
  torrent.on('ready', () => {
    if (torrent.infoHash !== given.infoHash) fault(`made ${torrent.infoHash} instead of ${given.infoHash}`)
  })
  return torrent
}

async function leech (client, given, state) {
  const torrent = client.add(await bytes(`/torrent/${given.name}`))
  torrent.once('download', () => report(`/begun/${given.name}`, ''))
  torrent.on('done', async () => {
    const content = await torrent.files[0].arrayBuffer()
    state.result = await sha256(content)
    state.good = state.result === given.sha256
    if (!state.good) fault(`received a file with SHA-256 ${state.result} instead of ${given.sha256}`)
    await report(`/data/${given.name}`, content)
  })
  return torrent
}

function cells (row, texts) {
  row.replaceChildren(...texts.map(text => Object.assign(document.createElement('td'), { textContent: text })))
  return row
}

const counts = given => Object.entries(given).map(([kind, count]) => `${count} × ${kind}`).join(', ')

function show () {
  document.getElementById('sockets').replaceChildren(...sockets.map(({ url, state, sent, received }) => {
    const row = cells(document.createElement('tr'), [url, state, counts(sent), counts(received)])
    row.children[1].className = state === 'open' ? 'good' : state === 'connecting' ? '' : 'bad'
    return row
  }))
  document.getElementById('torrents').replaceChildren(...shown.map(({ name, torrent, result, good, message }) => {
    const progress = torrent ? `${(torrent.progress * 100).toFixed(1)} %` : ''
    const verdict = good === null ? result : `${result} ${good ? 'as announced' : 'WRONG'}`
    const row = cells(document.createElement('tr'), [name, `${torrent?.numPeers ?? ''}`, progress, verdict, message])
    row.children[3].className = good === null ? '' : good ? 'good' : 'bad'
    row.children[4].className = message ? 'bad' : ''
    return row
  }))
}

setInterval(show, 100)
start().catch(fault)
