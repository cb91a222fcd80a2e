-- Requests of the hot path: they are read from the file in REQUESTS, one `TOKEN<TAB>BODY` a line, made into bytes once
-- and then sent in turn, so that the load generator itself does next to nothing per call. A body that policy must
-- refuse is sent with `x-refuse: 1` for the peer that cannot look into arguments.
local bytes, at = {}, 0

function init()
  wrk.method = "POST"
  for line in io.lines(os.getenv("REQUESTS")) do
    local token, body = line:match("^(%S*)\t(.*)$")
    local headers = {
      ["content-type"] = "application/json",
      ["accept"] = "application/json, text/event-stream",
      ["mcp-protocol-version"] = "2025-11-25",
    }
    if token ~= "-" then headers["authorization"] = "Bearer " .. token end
    if body:find('"production"', 1, true) then headers["x-refuse"] = "1" end
    bytes[#bytes + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  at = at % #bytes + 1
  return bytes[at]
end

function done(summary, latency)
  io.write(string.format('RESULT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "socket_errors": %d, "bad_status": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout, summary.errors.status))
end
