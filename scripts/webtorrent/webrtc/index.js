// The classes that clients take from a library called `webrtc-polyfill`, from another implementation of them.

import wrtc from '@roamhq/wrtc'

export const { RTCIceCandidate, RTCPeerConnection, RTCSessionDescription } = wrtc
