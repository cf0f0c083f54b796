// A hook for Node's module loader that puts `webrtc.js` in the place of the package `webrtc-polyfill`.

const REPLACEMENT = new URL('./webrtc.js', import.meta.url).href

export async function resolve (specifier, context, next) {
  return specifier === 'webrtc-polyfill' ? { url: REPLACEMENT, shortCircuit: true } : next(specifier, context)
}
