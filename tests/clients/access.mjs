// Calls a server once with each of several credentials, and prints the codes of the answers as JSON.
// The argument is a file with {target, cases: [{ca, cert, key, token}]}.
import { readFileSync } from 'node:fs'
import grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const { target, cases } = JSON.parse(readFileSync(process.argv[2]))
const definitions = loadSync('leadline/v1/training_service.proto', {
  includeDirs: ['protos', 'protos/third_party'],
})
const { TrainingService } = grpc.loadPackageDefinition(definitions).leadline.v1
const read = (path) => (path ? readFileSync(path) : null)

function answer({ ca, cert, key, token }) {
  const credentials = ca
    ? grpc.credentials.createSsl(read(ca), read(key), read(cert))
    : grpc.credentials.createInsecure()
  const client = new TrainingService(target, credentials)
  const metadata = new grpc.Metadata()
  if (token) metadata.set('authorization', `Bearer ${token}`)
  return new Promise((resolve) => {
    client.ListJobs({}, metadata, { deadline: Date.now() + 30_000 }, (error) => {
      client.close()
      resolve(error ? error.code : grpc.status.OK)
    })
  })
}

console.log(JSON.stringify(await Promise.all(cases.map(answer))))
