// Socket.IO with its Postgres adapter, as their documents set it up, without the long-polling that nobody here uses.
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
// Their advice on memory: the first request of each connection is not needed again.
io.engine.on('connection', (connection) => {
  connection.request = null
})

// The adapter listens in its own time, and says nothing when it does.
const listening = `select 1 from pg_stat_activity where query = 'LISTEN "socket.io#/"'`
while ((await pool.query(listening)).rowCount === 0) {
  await new Promise((resolve) => setTimeout(resolve, 20))
}
server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 }, () => console.log('ready'))
