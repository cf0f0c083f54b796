// A BitTorrent client made of the published reference client of WebTorrent trackers, a WebRTC library for Node and the
// peer wire protocol; controlled by signals. Its argument is a JSON object: `announce`, the tracker's URL, `data`, the
// directory of its files, `messages`, the file it keeps the tracker's last message about each torrent in, `torrents`
// (`name`, `infoHash`, `length`, `pieceLength`, `seed`), and `conformance`: whether to test first, with torrents of its
// own, whether the tracker does what the reference client expects.

import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import Wire from 'bittorrent-protocol'
import { clientFor, fail, log, reconnectAtOnce } from './reference_client.js'
import { checkConformance } from './conformance.js'

const BLOCK_BYTES = 16 * 1024
const OUTSTANDING_REQUESTS = 32

const settings = JSON.parse(process.argv[2])
const messages = {}

// Replaces the file in one step, since it is read while this program runs.
function keepMessage (name, message) {
  messages[name] = message
  writeFileSync(`${settings.messages}.new`, JSON.stringify(messages))
  renameSync(`${settings.messages}.new`, settings.messages)
}

// One torrent: what is known of its file, and its connections.
class Torrent {
  constructor (given) {
    Object.assign(this, given)
    this.path = `${settings.data}/${this.name}`
    this.pieces = Math.ceil(this.length / this.pieceLength)
    this.content = this.seed ? readFileSync(this.path) : Buffer.alloc(this.length)
    this.missing = this.seed ? 0 : this.length
    this.wanted = this.seed ? [] : [...this.blocks()]
    this.peerId = randomBytes(20).toString('hex')
    this.client = clientFor(settings.announce, this.infoHash, this.peerId, () => this.missing)
    this.client.on('warning', error => {
      log(`${this.name}: the tracker says: ${error.message}`)
      keepMessage(this.name, error.message)
    })
    this.client.on('peer', peer => this.connect(peer))
    this.client.start()
  }

  * blocks () {
    for (let piece = 0; piece < this.pieces; piece++) {
      const end = Math.min(this.pieceLength, this.length - piece * this.pieceLength)
      for (let offset = 0; offset < end; offset += BLOCK_BYTES) {
        yield { piece, offset, length: Math.min(BLOCK_BYTES, end - offset) }
      }
    }
  }

  connect (peer) {
    const wire = new Wire('webrtc')
    peer.on('error', error => log(`${this.name}: a connection ended: ${error.message}`))
    peer.pipe(wire).pipe(peer)
    wire.on('error', error => log(`${this.name}: a connection ended: ${error.message}`))
    wire.on('handshake', (infoHash, peerId) => {
      log(`${this.name}: connected to ${peerId}`)
      if (this.seed) wire.bitfield(this.bitfield())
      else wire.interested()
    })
    wire.on('interested', () => wire.unchoke())
    wire.on('request', (piece, offset, length, respond) => {
      const start = piece * this.pieceLength + offset
      respond(null, this.content.subarray(start, start + length))
    })
    wire.on('unchoke', () => this.request(wire))
    peer.on('close', () => {
      if (this.missing > 0) this.client.update()
    })
    wire.handshake(this.infoHash, this.peerId)
  }

  bitfield () {
    const bits = new Uint8Array(Math.ceil(this.pieces / 8))
    for (let piece = 0; piece < this.pieces; piece++) bits[piece >> 3] |= 0x80 >> (piece & 7)
    return bits
  }

  // Asks for what nobody was asked for yet, a limited number of blocks at a time.
  request (wire) {
    while (!wire.peerChoking && wire.requests.length < OUTSTANDING_REQUESTS && this.wanted.length > 0) {
      const block = this.wanted.shift()
      wire.request(block.piece, block.offset, block.length, (error, bytes) => {
        if (error) this.wanted.push(block)
        else this.take(block, bytes)
        this.request(wire)
      })
    }
  }

  take (block, bytes) {
    const start = block.piece * this.pieceLength + block.offset
    this.content.set(bytes, start)
    this.missing -= bytes.length
    // The file grows while it arrives, under another name, so that a look at the folder tells that something arrived.
    const file = openSync(`${this.path}.part`, existsSync(`${this.path}.part`) ? 'r+' : 'w')
    writeSync(file, bytes, 0, bytes.length, start)
    closeSync(file)
    if (this.missing > 0) return
    renameSync(`${this.path}.part`, this.path)
    log(`${this.name}: complete`)
    this.client.complete()
  }
}

process.on('SIGTERM', () => process.exit(0))
// The client's own timers do not keep the program running while it waits to connect again.
setInterval(() => {}, 60_000)
reconnectAtOnce()
if (settings.conformance) await checkConformance(settings.announce).catch(fail)
for (const given of settings.torrents) new Torrent(given)
