// The reference client of WebTorrent trackers as the programs of this folder use it.

import { register } from 'node:module'

register('./webrtc_hook.js', import.meta.url)
// Only what is loaded after the hook is subject to it.
export const { default: Client } = await import('bittorrent-tracker')

export function log (...parts) {
  console.log(new Date().toISOString(), ...parts)
}

export function fail (error) {
  log('failed:', error)
  process.exit(1)
}

// The client waits 10 seconds before it connects again, and up to five minutes more, by chance. Nothing else that it
// draws this way matters here; identifiers come from elsewhere.
export function reconnectAtOnce () {
  Math.random = () => 0
}

// A client for one torrent that announces what `left` returns.
export function clientFor (announce, infoHash, peerId, left) {
  const client = new Client({
    infoHash,
    peerId,
    announce: [announce],
    port: 6881,
    // No servers to ask for the own address: there are none here.
    rtcConfig: { iceServers: [] },
    getAnnounceOpts: () => ({ uploaded: 0, downloaded: 0, left: left() })
  })
  client.on('error', fail)
  return client
}
