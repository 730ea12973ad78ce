package samples_test

// crd has the fields of apiextensions.k8s.io/v1 that the CRDs here use; strict decoding refuses any
// other. The real types come in a module that brings a hundred others along, an API server among
// them; that the CRDs are right is shown on one in e2e.
type crd struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Group string `json:"group"`
		Scope string `json:"scope"`
		Names struct {
			Kind       string   `json:"kind"`
			ListKind   string   `json:"listKind"`
			Plural     string   `json:"plural"`
			Singular   string   `json:"singular"`
			ShortNames []string `json:"shortNames"`
		} `json:"names"`
		Versions []crdVersion `json:"versions"`
	} `json:"spec"`
}

type crdVersion struct {
	Name         string `json:"name"`
	Served       bool   `json:"served"`
	Storage      bool   `json:"storage"`
	Subresources struct {
		Status *struct{} `json:"status"`
	} `json:"subresources"`
	Schema struct {
		OpenAPIV3Schema schema `json:"openAPIV3Schema"`
	} `json:"schema"`
	AdditionalPrinterColumns []printerColumn `json:"additionalPrinterColumns"`
	SelectableFields         []struct {
		JSONPath string `json:"jsonPath"`
	} `json:"selectableFields"`
}

type printerColumn struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	JSONPath    string `json:"jsonPath"`
	Description string `json:"description"`
	Priority    int    `json:"priority"`
}

type schema struct {
	Type        string             `json:"type"`
	Format      string             `json:"format"`
	Description string             `json:"description"`
	Pattern     string             `json:"pattern"`
	Enum        []string           `json:"enum"`
	Minimum     *float64           `json:"minimum"`
	MinLength   *int64             `json:"minLength"`
	MaxLength   *int64             `json:"maxLength"`
	MaxItems    *int64             `json:"maxItems"`
	Required    []string           `json:"required"`
	Properties  map[string]*schema `json:"properties"`
	Items       *schema            `json:"items"`
	MapType     string             `json:"x-kubernetes-map-type"`
	ListType    string             `json:"x-kubernetes-list-type"`
	ListMapKeys []string           `json:"x-kubernetes-list-map-keys"`
	Validations []struct {
		Rule    string `json:"rule"`
		Message string `json:"message"`
	} `json:"x-kubernetes-validations"`
}

// clusterConfig is the part of a GKE cluster configuration that concerns multiple networks (U4,
// U5).
type clusterConfig struct {
	APIVersion                string `json:"apiVersion"`
	MultipleNetworkInterfaces bool   `json:"multipleNetworkInterfaces"`
	EnableDataplaneV2         bool   `json:"enableDataplaneV2"`
	Network                   struct {
		ServiceCIDR string `json:"serviceCIDR"`
		PodCIDR     string `json:"podCIDR"`
		VCenter     struct {
			NetworkName string `json:"networkName"`
		} `json:"vCenter"`
		AdditionalNodeInterfaces []struct {
			NetworkName     string `json:"networkName"`
			IPBlockFilePath string `json:"ipBlockFilePath"`
			Type            string `json:"type"`
		} `json:"additionalNodeInterfaces"`
	} `json:"network"`
}

// ipBlockFile holds the addresses of nodes on one network (U6).
type ipBlockFile struct {
	Blocks []struct {
		Netmask string `json:"netmask"`
		Gateway string `json:"gateway"`
		IPs     []struct {
			IP       string `json:"ip"`
			Hostname string `json:"hostname"`
		} `json:"ips"`
	} `json:"blocks"`
}
