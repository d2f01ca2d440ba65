// uWebSockets.js with LISTEN through `pg`. It publishes to a topic, and writes the messages of one turn together.
import uws from '@trufflesuite/uws-js-unofficial'
import pg from 'pg'

const topic = 'compare'
const app = uws.App().ws('/', {
  compression: uws.DISABLED,
  maxPayloadLength: 16 * 1024,
  maxBackpressure: 1024 * 1024,
  closeOnBackpressureLimit: true,
  idleTimeout: 120,
  open: (viewer) => viewer.subscribe(topic),
})

const database = new pg.Client({ connectionString: process.env.DATABASE_URL })
await database.connect()
database.on('notification', ({ payload }) => app.publish(topic, payload))
await database.query('LISTEN compare')
app.listen('127.0.0.1', Number(process.env.PORT), (socket) => {
  if (!socket) throw new Error(`cannot listen on port ${process.env.PORT}`)
  console.log('ready')
})
