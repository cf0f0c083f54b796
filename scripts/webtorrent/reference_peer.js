// One reference client that does what it is told by the process that started it, and tells that what happens to it.

import { clientFor, fail } from './reference_client.js'

const settings = JSON.parse(process.argv[2])
let left = settings.left

const tell = (kind, data) => process.send({ kind, data })
const client = clientFor(settings.announce, settings.infoHash, settings.peerId, () => left)
client.on('update', data => tell('update', data))
client.on('scrape', data => tell('scrape', data))
client.on('warning', error => tell('warning', error.message))
client.on('peer', peer => {
  // Each side says who it is over the connection that the tracker has made possible.
  peer.on('data', data => tell('met', new TextDecoder().decode(data)))
  peer.on('error', error => console.log(`a connection ended: ${error.message}`))
  peer.write(settings.peerId)
})

process.on('message', ({ call, given }) => {
  if (call === 'setLeft') left = given[0]
  else client[call](...given)
})
process.on('disconnect', () => process.exit(0))
process.on('uncaughtException', fail)
