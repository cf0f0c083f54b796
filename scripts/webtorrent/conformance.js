// Whether a tracker does what the reference client expects of it: a few of these clients, each a process with a
// connection of its own, come, meet, ask, finish, leave and die in a torrent made up for this.

import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { Client, log } from './reference_client.js'

const STEP_MILLISECONDS = 20_000
const POLL_MILLISECONDS = 100
const PEER_PROGRAM = fileURLToPath(new URL('./reference_peer.js', import.meta.url))

const newId = () => randomBytes(20).toString('hex')

// One client in a process of its own, and the events it has reported that nobody has asked for yet.
class Peer {
  constructor (name, announce, infoHash, left, peerId = newId()) {
    this.name = name
    this.peerId = peerId
    this.events = []
    this.waiting = null
    this.child = fork(PEER_PROGRAM, [JSON.stringify({ announce, infoHash, left, peerId })])
    this.child.on('message', event => {
      this.events.push(event)
      this.waiting?.()
    })
  }

  do (call, ...given) {
    this.child.send({ call, given })
  }

  // The first event of a kind for which `fits` holds; events of this kind before it are dropped.
  async event (kind, what, fits = () => true) {
    const deadline = Date.now() + STEP_MILLISECONDS
    for (;;) {
      const found = this.events.findIndex(event => event.kind === kind)
      if (found >= 0) {
        const [event] = this.events.splice(found, 1)
        if (fits(event.data)) return event.data
        log(`${this.name} passes over ${kind} ${JSON.stringify(event.data)}`)
        continue
      }
      const warning = this.events.find(event => event.kind === 'warning')
      if (warning) throw new Error(`${this.name} waits for ${what} and is told: ${warning.data}`)
      if (Date.now() > deadline) throw new Error(`${this.name} waits in vain for ${what}`)
      await Promise.race([new Promise(resolve => { this.waiting = resolve }), pause()])
    }
  }

  // Waits for the answer to an announce, with these counts.
  async counts (complete, incomplete) {
    const wanted = `an answer with ${complete} complete and ${incomplete} incomplete`
    const answer = await this.event('update', wanted)
    if (answer.complete !== complete || answer.incomplete !== incomplete) {
      throw new Error(`${this.name} waits for ${wanted} and is told ${JSON.stringify(answer)}`)
    }
  }

  async meets (...others) {
    const missing = new Set(others.map(other => other.peerId))
    while (missing.size > 0) {
      const names = others.filter(other => missing.has(other.peerId)).map(other => other.name).join(' and ')
      missing.delete(await this.event('met', `a connection to ${names}`))
    }
  }

  die () {
    this.child.kill('SIGKILL')
  }
}

const pause = () => new Promise(resolve => setTimeout(resolve, POLL_MILLISECONDS))

function scrape (announce, infoHashes) {
  return new Promise((resolve, reject) => {
    Client.scrape({ announce, infoHash: infoHashes }, (error, results) => error ? reject(error) : resolve(results))
  })
}

// Scrapes until the counts are these: a tracker learns of a closed connection a moment after it is closed.
async function countsBecome (announce, infoHash, complete, incomplete) {
  const deadline = Date.now() + STEP_MILLISECONDS
  for (;;) {
    const answer = await scrape(announce, infoHash)
    if (answer.complete === complete && answer.incomplete === incomplete) return answer
    if (Date.now() > deadline) {
      throw new Error(`a scrape says ${JSON.stringify(answer)} instead of ${complete} and ${incomplete}`)
    }
    await pause()
  }
}

export async function checkConformance (announce) {
  const infoHash = newId()
  const join = (name, left, peerId) => new Peer(name, announce, infoHash, left, peerId)
  const peers = [join('the seeder', 0), join('the first leecher', 1), join('the second leecher', 1)]
  // All processes are started now, since that is what takes longest. This one has its turn when the first is dead.
  peers.push(join('the seeder that is back', 0, peers[0].peerId))
  try {
    await comeAndMeet(...peers)
    await askAndFinish(announce, infoHash, ...peers)
    await leaveAndReturn(announce, infoHash, ...peers)
  } finally {
    peers.forEach(peer => peer.die())
  }
  log('conformance: everything went as the reference client expects it')
}

async function comeAndMeet (seeder, first, second) {
  seeder.do('start')
  await seeder.counts(1, 0)
  first.do('start')
  await first.counts(1, 1)
  await Promise.all([first.meets(seeder), seeder.meets(first)])
  second.do('start')
  await second.counts(1, 2)
  // The offers of one announce reach different peers.
  await Promise.all([second.meets(seeder, first), seeder.meets(second), first.meets(second)])
  log('conformance: three peers have met')
}

async function askAndFinish (announce, infoHash, seeder, first, second) {
  first.do('update')
  await first.counts(1, 2)
  first.do('setLeft', 0)
  first.do('complete')
  await first.counts(2, 1)
  second.do('scrape')
  const own = await second.event('scrape', 'the answer to a scrape')
  if (own.complete !== 2 || own.incomplete !== 1 || !(own.downloaded >= 1)) {
    throw new Error(`a scrape says ${JSON.stringify(own)} of two seeders, one of which has finished, and a leecher`)
  }
  const unknown = newId()
  const many = await scrape(announce, [infoHash, unknown])
  if (many[infoHash].complete !== 2 || many[infoHash].incomplete !== 1 || many[unknown].complete !== 0) {
    throw new Error(`a scrape of two torrents says ${JSON.stringify(many)}`)
  }
  log('conformance: counts are right')
}

async function leaveAndReturn (announce, infoHash, seeder, first, second, again) {
  // Stopping is answered.
  first.do('stop')
  await first.counts(1, 1)
  // Without a goodbye: the process dies, or closes its connection.
  seeder.die()
  await countsBecome(announce, infoHash, 0, 1)
  again.do('start')
  await again.counts(1, 1)
  await Promise.all([again.meets(second), second.meets(again)])
  second.do('destroy')
  await countsBecome(announce, infoHash, 1, 0)
  // One that stopped may start again.
  first.do('start')
  await first.counts(2, 0)
  log('conformance: peers that left are gone')
}
