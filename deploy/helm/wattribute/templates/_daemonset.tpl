{{- /* One DaemonSet, of a dict with root and gpu. Values apart, it is deploy/kubernetes/agent/daemonset.yaml. */}}
{{- define "wattribute.daemonset" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
{{- $name := include "wattribute.name" $root }}
{{- $component := ternary "agent-gpu" "agent" .gpu }}
{{- $selector := dict "app.kubernetes.io/name" "wattribute" "app.kubernetes.io/instance" $root.Release.Name "app.kubernetes.io/component" $component }}
{{- $nodes := deepCopy $values.nodeSelector }}
{{- if .gpu }}
{{- $nodes = set $nodes "nvidia.com/gpu.present" "true" }}
{{- if $values.gpu.operatorClient }}
{{- $nodes = set $nodes "nvidia.com/gpu.deploy.client" "true" }}
{{- end }}
{{- end }}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ $name }}{{ if .gpu }}-gpu{{ end }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "wattribute.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
spec:
  selector:
    matchLabels:
      {{- toYaml $selector | nindent 6 }}
  updateStrategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 10%
  template:
    metadata:
      labels:
        {{- toYaml $selector | nindent 8 }}
      annotations:
        checksum/config: {{ sha256sum $values.config }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      hostPID: true
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      enableServiceLinks: false
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      terminationGracePeriodSeconds: 20
      {{- if .gpu }}
      {{- with $values.gpu.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      {{- end }}
      nodeSelector:
        {{- toYaml $nodes | nindent 8 }}
      {{- if and $values.gpu.enabled (not .gpu) }}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - key: nvidia.com/gpu.present
                    operator: NotIn
                    values: ["true"]
      {{- end }}
      tolerations:
        {{- toYaml $values.tolerations | nindent 8 }}
      securityContext:
        runAsUser: 0
        runAsGroup: 0
        fsGroup: 19917
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: agent
          image: "{{ $values.image.repository }}:{{ $values.image.tag | default $root.Chart.AppVersion }}"
          {{- with $values.image.pullPolicy }}
          imagePullPolicy: {{ . }}
          {{- end }}
          args: ["agent"]
          env:
            {{- if .gpu }}
            - name: NVIDIA_VISIBLE_DEVICES
              value: all
            - name: NVIDIA_DRIVER_CAPABILITIES
              value: utility
            {{- end }}
            - name: HOST_IP
              valueFrom:
                fieldRef:
                  fieldPath: status.hostIP
            - name: WATTRIBUTE_AGENT__LISTEN
              value: "[$(HOST_IP)]:{{ $values.port }}"
          ports:
            - name: metrics
              containerPort: {{ $values.port }}
              hostPort: {{ $values.port }}
              protocol: TCP
          securityContext:
            privileged: false
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
              add: [CHOWN, SETGID, SETUID]
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          startupProbe:
            exec:
              command: [python3, -I, -S, /opt/wattribute/healthy.py, --alive]
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 12
          livenessProbe:
            exec:
              command: [python3, -I, -S, /opt/wattribute/healthy.py, --alive]
            periodSeconds: 30
            timeoutSeconds: 5
            failureThreshold: 3
          volumeMounts:
            - { name: sys, mountPath: /host/sys, readOnly: true }
            - { name: machine-id, mountPath: /etc/machine-id, readOnly: true }
            - { name: state, mountPath: /var/lib/wattribute }
            - { name: socket, mountPath: /run/wattribute }
            - { name: config, mountPath: /etc/wattribute, readOnly: true }
            - { name: web, mountPath: /etc/wattribute-web, readOnly: true }
      volumes:
        - name: sys
          hostPath: { path: /sys, type: Directory }
        - name: machine-id
          hostPath: { path: /etc/machine-id, type: File }
        - name: state
          hostPath: { path: {{ $values.statePath }}, type: DirectoryOrCreate }
        - name: socket
          hostPath: { path: {{ $values.socketPath }}, type: DirectoryOrCreate }
        - name: config
          configMap: { name: {{ $name }} }
        - name: web
          {{- if $values.web.certManager }}
          projected:
            sources:
              - configMap: { name: {{ $name }}-web }
              - secret: { name: {{ $name }}-tls }
          {{- else }}
          secret: { secretName: {{ $values.web.secretName }} }
          {{- end }}
{{- end }}
