// Socket.IO with its Postgres adapter, set up as in its documentation, without long-polling, which no viewer here uses.
import { createServer } from 'node:http'
import { createAdapter } from '@socket.io/postgres-adapter'
import pg from 'pg'
import { Server } from 'socket.io'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 4 })
const server = createServer()
const io = new Server(server, {
  transports: ['websocket'],
  perMessageDeflate: false,
  serveClient: false,
  adapter: createAdapter(pool),
})
// Saves memory, as the documentation advises: the first request of each connection is not needed any more.
io.engine.on('connection', (connection) => {
  connection.request = null
})

// Waits for LISTEN: the adapter starts it later and does not report it.
const listening = `select 1 from pg_stat_activity where query = 'LISTEN "socket.io#/"'`
while ((await pool.query(listening)).rowCount === 0) {
  await new Promise((resolve) => setTimeout(resolve, 20))
}
server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 }, () => console.log('ready'))
