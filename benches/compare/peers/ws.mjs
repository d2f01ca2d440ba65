// A gateway written by hand: `ws`, and LISTEN with `pg`. Each message becomes one buffer for all viewers.
import pg from 'pg'
import { WebSocketServer } from 'ws'

// A viewer with more unsent bytes does not read. The gateway closes it, and it may reconnect.
const waitingBytesMax = 1024 * 1024

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.env.PORT),
  backlog: 4096,
  perMessageDeflate: false,
  maxPayload: 16 * 1024,
})

const database = new pg.Client({ connectionString: process.env.DATABASE_URL })
await database.connect()
database.on('notification', ({ payload }) => {
  const message = Buffer.from(payload)
  for (const viewer of server.clients) {
    if (viewer.bufferedAmount > waitingBytesMax) viewer.terminate()
    else viewer.send(message, { binary: false })
  }
})
await database.query('LISTEN compare')
console.log('ready')
