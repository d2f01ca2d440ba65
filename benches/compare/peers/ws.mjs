// A gateway as one writes it by hand: `ws`, and LISTEN with `pg`. Each message becomes a buffer once and goes to all.
import pg from 'pg'
import { WebSocketServer } from 'ws'

// More than this waiting is a viewer that does not read: it is cut off and may come back.
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
