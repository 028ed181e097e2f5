// Serves files as node's own examples do: a stream piped into the answer.
// /chunked/... has no Content-Length. What is uploaded is answered with its SHA-256.
import { createHash } from 'node:crypto'
import { createReadStream, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'

const [, , root, host, port] = process.argv
createServer((request, response) => {
  if (request.method !== 'GET') {
    const hash = createHash('sha256')
    request.on('data', piece => hash.update(piece)).on('end', () => response.end(hash.digest('hex') + '\n'))
    return
  }
  const [, how, name] = request.url.split('/')
  if (!name) return response.writeHead(404).end()
  const path = join(root, name)
  if (how !== 'chunked') response.setHeader('Content-Length', statSync(path).size)
  createReadStream(path).pipe(response)
}).listen(Number(port), host)
