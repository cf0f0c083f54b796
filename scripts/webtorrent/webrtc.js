// The classes that the reference client takes from a package called `webrtc-polyfill`, from another implementation of
// them: that package fetches a compiled library from outside of npm when it is installed.

import wrtc from '@roamhq/wrtc'

export const { RTCIceCandidate, RTCPeerConnection, RTCSessionDescription } = wrtc
