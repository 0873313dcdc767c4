// Follows a stream with the npm package `eventsource` until it is closed for good, and prints what it saw as JSON.
import { EventSource } from 'eventsource'

const [, , url, ...names] = process.argv
const seen = []
let errors = 0
const waiting = setInterval(() => {}, 1000) // the package's own timer does not keep the process
const source = new EventSource(url)
for (const name of names) {
  source.addEventListener(name, (event) => seen.push([event.lastEventId, event.type, JSON.parse(event.data).sequence]))
}
source.onerror = (event) => {
  errors += 1
  if (source.readyState === EventSource.CLOSED) {
    clearInterval(waiting)
    console.log(JSON.stringify({ seen, errors, code: event.code ?? null }))
  }
}
