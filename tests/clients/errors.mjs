// Prints errors, deadlines and cancellation of grpc-js as JSON. Arguments: a target and a queued
// job.
import grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const [target, name] = process.argv.slice(2)
const definitions = loadSync(
  ['leadline/v1/training_service.proto', 'google/rpc/status.proto', 'google/rpc/error_details.proto'],
  { includeDirs: ['protos', 'protos/third_party'], keepCase: true },
)
const { TrainingService } = grpc.loadPackageDefinition(definitions).leadline.v1
// It pings far more often than servers usually allow.
const client = new TrainingService(target, grpc.credentials.createInsecure(), {
  'grpc.keepalive_time_ms': 100,
})

function detailsOf(error) {
  const [bytes] = error.metadata.get('grpc-status-details-bin')
  if (!bytes) return {}
  const { details } = definitions['google.rpc.Status'].deserialize(bytes)
  return Object.fromEntries(
    details.map(({ type_url, value }) => {
      const type = type_url.replace('type.googleapis.com/', '')
      return [type, definitions[type].deserialize(value)]
    }),
  )
}

// Reads a stream to its end, which must be an error.
async function failure(stream, onEvent = () => {}) {
  try {
    for await (const event of stream) onEvent(event)
  } catch (error) {
    const details = detailsOf(error)
    return {
      code: error.code,
      reason: details['google.rpc.ErrorInfo']?.reason,
      fields: details['google.rpc.BadRequest']?.field_violations.map(({ field }) => field),
      retry_seconds: details['google.rpc.RetryInfo']?.retry_delay.seconds.toNumber(),
    }
  }
  throw new Error('the stream ended without an error')
}

const cancelled = client.WatchJob({ name })
console.log(
  JSON.stringify({
    invalid: await failure(client.TrainJob({ spec: { dataset: 'tiny', blocks: 65, epochs: -1 } })),
    exhausted: await failure(client.TrainJob({ spec: { dataset: 'tiny' } })),
    deadline: await failure(client.WatchJob({ name }, { deadline: Date.now() + 1000 })),
    cancelled: await failure(cancelled, () => cancelled.cancel()),
  }),
)
client.close()
