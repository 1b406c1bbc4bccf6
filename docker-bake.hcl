# docker buildx bake: every image of the fleet at once, compiled once.
variable "TAG" {
  default = "dev"
}

group "default" {
  targets = ["service"]
}

target "service" {
  name   = service
  matrix = { service = ["ingest", "alerting", "status-tracker", "bridge", "device-sim", "fleet"] }
  target = "one"
  args   = { SERVICE = service }
  tags   = ["mqtt-fleet/${service}:${TAG}"]
}
