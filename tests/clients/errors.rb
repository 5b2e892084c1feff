# Prints errors, deadlines and cancellation of gRPC for Ruby as JSON. Arguments: a target and a
# queued job.
require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'grpc'
require 'json'
require 'leadline/v1/training_service_services_pb'

include Leadline::V1

TARGET, NAME = ARGV
# It pings far more often than servers usually allow.
PINGS = { 'grpc.keepalive_time_ms' => 100, 'grpc.http2.max_pings_without_data' => 0 }.freeze
CLIENT = TrainingService::Stub.new(TARGET, :this_channel_is_insecure, channel_args: PINGS)
KINDS = [Google::Rpc::ErrorInfo, Google::Rpc::BadRequest, Google::Rpc::RetryInfo].freeze

def failure
  yield
  raise 'the call ended without an error'
rescue GRPC::BadStatus => e
  packed = e.to_rpc_status&.details || []
  info, bad, retrying = KINDS.map { |kind| packed.find { |any| any.is(kind) }&.unpack(kind) }
  {
    code: e.code,
    reason: info&.reason,
    fields: bad&.field_violations&.map(&:field),
    retry_seconds: retrying&.retry_delay&.seconds
  }.compact
end

def train(**spec)
  CLIENT.train_job(TrainJobRequest.new(spec: TrainingSpec.new(dataset: 'tiny', **spec))).to_a
end

WATCH = WatchJobRequest.new(name: NAME)

def cancel_after_the_first_event
  operation = CLIENT.watch_job(WATCH, return_op: true)
  operation.execute.each { operation.cancel }
end

puts JSON.generate(
  invalid: failure { train(blocks: 65, epochs: -1) },
  exhausted: failure { train },
  deadline: failure { CLIENT.watch_job(WATCH, deadline: Time.now + 1).to_a },
  cancelled: failure { cancel_after_the_first_event }
)
