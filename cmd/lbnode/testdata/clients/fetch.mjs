// Fetches paths of one server over one connection and prints the SHA-256 of each.
import { createHash } from 'node:crypto'
import { Agent, get } from 'node:http'

const [, , server, ...paths] = process.argv
const agent = new Agent({ keepAlive: true, maxSockets: 1, timeout: 60000 })

const fetchOne = path => new Promise((resolve, reject) => {
  get(`http://${server}${path}`, { agent }, answer => {
    if (answer.statusCode !== 200) reject(new Error(`${path}: ${answer.statusCode}`))
    const hash = createHash('sha256')
    answer.on('data', piece => hash.update(piece))
    answer.on('end', () => answer.complete ? resolve(hash.digest('hex')) : reject(new Error(`${path}: cut short`)))
    answer.on('error', reject)
  }).on('error', reject).on('timeout', () => reject(new Error(`${path}: timeout`)))
})

for (const path of paths) console.log(await fetchOne(path))
agent.destroy()
